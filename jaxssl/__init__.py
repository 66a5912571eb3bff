"""jaxssl: self-supervised and teacher-student learning on JAX.

Every method is a small config, consumed by one generic sharded training loop.
"""

__version__ = "0.1.0"
