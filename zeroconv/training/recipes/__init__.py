"""What decides a run: recipes, their settings, and how their files are read."""
