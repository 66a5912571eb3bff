"""Commands on finished runs: evaluate, export, memorisation."""
