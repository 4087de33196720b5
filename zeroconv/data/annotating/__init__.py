"""Drawing the hints of a data set into a folder."""
