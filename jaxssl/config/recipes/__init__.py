"""Base recipes: data, views, encoder, optimizer and evals of each scale, for methods to build on.

Each module is of one kind of data and has `PRESETS`, name -> a function that fills a config.
`base(preset)` gives the config of a preset of any kind, without a method; an experiment adds its
own parts. They live in the package so that a config outside the repository can use them.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from jaxssl.config import finder
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.skeleton import OPEN, skeleton

Presets = Mapping[str, Callable[[ConfigDict], None]]


def base(preset: str) -> ConfigDict:
    """The base config of a preset; the sections whose entries a method names are open.

    Raises:
      ConfigError: no such preset.

    >>> base("digits").encoder.name
    'convnet'
    """
    known: dict[str, Callable[[ConfigDict], None]] = {}
    for name in finder.names(sys.modules[__name__], "PRESETS"):
        known |= importlib.import_module(f"{__name__}.{name}").PRESETS
    if preset not in known:
        raise ConfigError(f"no preset {preset!r}{near(preset, known)}")
    config = skeleton()
    with config.unlocked():
        known[preset](config)
        config.preset = preset
    for section in OPEN:
        config[section].unlock()
    return config


def data_path(name: str) -> str:
    """Where the data set `name` is looked for: under $JAXSSL_DATA, else beside the checkout."""
    return os.path.join(os.environ.get("JAXSSL_DATA", os.path.join("..", "shared", "data")), name)
