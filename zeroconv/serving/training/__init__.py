"""Trainings that clients start: uploaded data, recipes, processes, and what their runs tell."""
