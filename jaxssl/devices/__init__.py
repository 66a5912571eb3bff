"""Devices and processes: meshes, sharding, chunks of a batch, runs of several processes."""
