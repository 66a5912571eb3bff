"""Peers: the same training in other libraries, each in its own interpreter, in turn with ours.

`python -m jaxssl.bench --against=NAME[,NAME] --config=...`; `python -m jaxssl.bench.peers.install
NAME` makes the environment that a peer needs. `describe` says in JSON what is to be trained,
`process` runs the other interpreter, and `workers` is what runs there.
"""

import os
import pathlib

from jaxssl.config.errors import ConfigError, near

# peer -> what pip installs for it
PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "numpy"),
    "torch_compile": ("torch", "numpy"),
    "lightly": ("torch", "torchvision", "lightly", "numpy"),
    "stable_pretraining": ("stable-pretraining[jax]",),
}
# Peers that use the environment of another.
SHARED = {"torch_compile": "torch"}


def check_peer(name: str) -> str:
    """The name itself.

    Raises:
      ConfigError: no such peer.
    """
    if name not in PACKAGES:
        raise ConfigError(f"no peer {name!r}{near(name, PACKAGES)}")
    return name


def environment(name: str) -> pathlib.Path:
    """The folder of the peer's environment, under $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(cache) / "jaxssl" / "peers" / SHARED.get(name, name)


def interpreter(name: str) -> pathlib.Path:
    """Where the Python of the peer's environment is, once it is made."""
    return environment(name) / "bin" / "python"
