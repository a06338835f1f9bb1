"""Recognisers: what reads images, whatever trained it."""
