"""Evaluators that judge what a network itself puts out."""
