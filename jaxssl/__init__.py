"""jaxssl: self-supervised and teacher-student learning on JAX.

Every method is a small config, consumed by one generic sharded training loop.

    encode, params = jaxssl.load_encoder("runs/lejepa")
    features = encode(params, images)
"""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Only when asked for: whoever wants nothing but `jaxssl.losses` should not wait for checkpoints
    # and data sets to be imported.
    if name == "load_encoder":
        from jaxssl.pretrained import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
