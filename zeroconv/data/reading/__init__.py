"""Reading what a data set's folder holds, and nothing outside of it."""
