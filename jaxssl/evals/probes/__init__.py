"""Evaluators that judge features with labels."""
