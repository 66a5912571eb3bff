"""Benchmarks: `python -m jaxssl.bench [NAME ...]`, each a module of this package with a `run`.

`run(workload, repeats) -> list[Measure]`. A speed is a ratio to a peer that took turns with it in
the same process: what else the machine does then slows both alike.
"""
