"""Losses: pure functions on the global batch."""
