"""Configs: loaded, checked by their fields, and the recipes that they start from."""
