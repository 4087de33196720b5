"""Arrays on disk named by their content, and what was found out about files."""
