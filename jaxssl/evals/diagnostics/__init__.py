"""Evaluators of the geometry of features, which need no labels."""
