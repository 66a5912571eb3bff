"""Numbers that are not finite: found at their step, named, and never part of the state.

The step itself leaves the state as it was where its loss or its gradient is not finite
(`jaxssl.step.make_step`). What the run does then is `config.nonfinite`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import named_leaves
from jaxssl.evals.features import to_host
from jaxssl.method import of_stream, stream_of

ACTIONS = ("stop", "skip", "rewind")
DEFAULTS: dict[str, Any] = dict(
    action="stop",  # "skip": go on without that step; "rewind": back to the last checkpoint
    limit=10,  # the most steps skipped, or rewinds, of a run; one more stops it
)


def validate(settings: Mapping[str, Any]) -> None:
    """Refuses an unknown action.

    Raises:
      ConfigError: naming the field.

    >>> validate(DEFAULTS)
    """
    action = settings["action"]
    if action not in ACTIONS:
        raise ConfigError(f"nonfinite.action: found {action!r}{near(action, ACTIONS)}")


def found(values: Mapping[str, np.ndarray]) -> list[str]:
    """What a step's metrics say is not finite, as text, the first cause first; [] where all is.

    Only "loss" and "gradient_norm" decide: NaN in another metric may say that it does not exist in
    this phase.

    >>> found({"loss": np.float32("nan"), "a": np.float32("inf"), "b": np.float32(1)})
    ['a is inf', 'loss is nan']
    """
    finite = lambda name: np.isfinite(values[name])
    total = next((n for n in ("loss", "gradient_norm") if n in values and not finite(n)), None)
    if total is None:
        return []
    # The parts that made it so, if any did: terms of a loss, networks of a gradient.
    others = [name for name in values if not name.startswith("loss") and not finite(name)]
    of_gradient = [name for name in others if name.startswith("gradient_norm/")]
    of_loss = [name for name in others if not name.startswith("gradient_norm")]
    parts = of_loss if total == "loss" else of_gradient
    return [
        f"{name} is {float(values[name])}" for name in dict.fromkeys((*parts[:1], total, "loss"))
    ]


def sources(state: Any, batch: Mapping[str, jax.Array]) -> list[str]:
    """What went into a step and was not finite before it: samples, params, teachers, `extra`.

    Args:
      state: before the step; the guard of the step sees to it that it is so after it, too.
      batch: of the step.
    """
    return [*_samples(batch), *_leaves(state)][:1]


def _samples(batch: Mapping[str, jax.Array]) -> Iterator[str]:
    for name, values in batch.items():
        if not jnp.issubdtype(values.dtype, jnp.floating):
            continue
        counts = to_host(_counts(values.reshape(len(values), -1)))
        if counts.any():
            index = of_stream(batch, stream_of(name))["index"]
            first = int(to_host(index)[int(np.argmax(counts > 0))])
            more = int((counts > 0).sum()) - 1
            others = f" and of {more} more" * bool(more)
            yield f"data field {name!r} of sample {first}{others} is not finite"


def _leaves(state: Any) -> Iterator[str]:
    for part in ("params", "teachers", "extra"):
        for name, leaf in named_leaves(getattr(state, part)).items():
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                bad = int(to_host(_counts(leaf.reshape(1, -1)))[0])
                if bad:
                    yield f"{part}/{name} has {bad} values of {leaf.size} that are not finite"


@jax.jit
def _counts(rows: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(rows), axis=1)
