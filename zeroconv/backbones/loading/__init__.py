"""From names and files to a backbone: folders, single files, their configs, and `convert`."""
