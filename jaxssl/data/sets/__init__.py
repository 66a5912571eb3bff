"""Data sets, each by its name."""
