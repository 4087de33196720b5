"""Programs for those who work on zeroconv; the package does not import them."""
