"""Base recipes: data, views, encoder, optimizer and evals of each scale, for methods to build on.

Each module is of one kind of data and has `PRESETS`, name -> a function that fills a config.
`base(preset)` gives the config of a preset of any kind, without a method; an experiment adds its
own parts. They live in the package so that a config outside the repository can use them.
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

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


def classifier() -> dict[str, Any]:
    """A linear classifier of the pooled output as a head, its logits in "logits"."""
    return dict(name="classifier", width="num_classes", reads="pooled", output="logits")


def cross_entropy(student: str = "logits", labels: str = "label") -> dict[str, Any]:
    """The cross-entropy of logits with a field of the batch as a term."""
    return dict(
        fn="label_smoothing_cross_entropy",
        student=student,
        pairs="single",
        labels=dict(batch=labels),
    )


def short_run(config: Any, *, steps: int, batch: int, every: int) -> None:
    """The training of a preset that takes minutes on a laptop, evaluated every so many steps."""
    config.train.update(steps=steps, global_batch=batch)
    config.optimizer.update(learning_rate=("warmup_cosine", 2e-3, 30, 2e-6), weight_decay=0.05)
    config.evals.update(every_steps=every)
    config.checkpoint.update(every_steps=every)


def data_path(name: str) -> str:
    """Where the data set `name` is looked for: under $JAXSSL_DATA, else beside the checkout."""
    return os.path.join(os.environ.get("JAXSSL_DATA", os.path.join("..", "shared", "data")), name)
