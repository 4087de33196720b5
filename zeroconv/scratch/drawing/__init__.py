"""Drawing the pictures that bases learn from."""
