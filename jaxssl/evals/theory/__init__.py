"""Evaluators that measure what theory speaks of."""
