"""How good pictures are, and how well a control is followed."""
