"""What every family refuses in the same words: unknown options, microbatches of batch norms."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxssl.config.errors import ConfigError, near
from jaxssl.data import streams


def options(config: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """`config.method_options` over the defaults `known`.

    Raises:
      ConfigError: an option that the family does not have.
    """
    given = dict(config.method_options)
    for name in given:
        if name not in known:
            raise ConfigError(f"method_options.{name}: unknown{near(name, known)}")
    return {**known, **given}


def microbatches(config: Any, normed: Sequence[str]) -> None:
    """Refuses parts of a batch that do not divide it, or that a batch norm would see alone.

    Args:
      config: of the run.
      normed: the networks that see samples in parts and have batch statistics.

    Raises:
      ConfigError: naming what does not fit.
    """
    k = config.train.microbatches
    if k == 1:
        return
    for field, batch in streams.batches(config).items():
        if batch % k:
            raise ConfigError(f"train.microbatches: {k} does not divide {field}, {batch}")
    if normed:
        raise ConfigError(
            f"train.microbatches: {k}, but {', '.join(sorted(normed))} use batch normalisation, "
            "whose statistics would be those of a part; use layer or group norms, or microbatches=1"
        )


def unread(config: Any, *sections: str) -> None:
    """Refuses entries of sections that a family does not read.

    Raises:
      ConfigError: naming the first entry.
    """
    for section in sections:
        for name in config[section]:
            raise ConfigError(f"{section}.{name}: {config.method!r} reads no {section}")
