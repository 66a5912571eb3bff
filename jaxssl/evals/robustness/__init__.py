"""Evaluators of changed and of foreign samples."""
