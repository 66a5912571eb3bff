"""The loop of a run, its stages, and all that it leaves in its workdir."""
