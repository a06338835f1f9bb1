"""Data sets on disk: built from sources once, read by training and by evaluation."""
