"""Few-shot evaluation: a linear classifier from a handful of labels, over many draws of them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import DeviceFeatures, Features, place, replicate, standardise, to_host
from jaxssl.evals.probes import logistic

PROTOCOL: dict[str, Any] = {
    "shots": (1, 5),
    "draws": 20,
    "c": 1.0,
    "max_iterations": 100,
    "seed": 0,
}
BETTER = {"*_interval": None}


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    shots: tuple[int, ...] = (1, 5),
    draws: int = 20,
    c: float = 1.0,
    max_iterations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Mean test accuracy of logistic regression on n labels a class, over seeded draws.

    The draws depend on the labels and the seed alone: the trained encoder and its controls see
    the same samples, and the n labels of a draw are among its m > n labels. The bank without its
    labels gives the statistics of `features.standardise`, as in `linear`.

    Args:
      train: the bank that labels are drawn from.
      test: the whole of it is scored in every draw.
      num_classes: K.
      shots: labels a class; one result for each.
      draws: how many.
      c: inverse strength of the penalty, as in scikit-learn.
      max_iterations: of L-BFGS.
      seed: of the draws.

    Returns:
      for each n in `shots`: {"<n>_shot": mean accuracy, "<n>_shot_interval": half the width of its
      95 % interval over the draws, 1.96 s / sqrt(draws)}, fractions 0 ... 1.

    Raises:
      ConfigError: a class of the bank has fewer than max(shots) samples.
    """
    rows = _draw(train.y, num_classes, max(shots), draws, seed)
    train, test = standardise(train, test)
    # All draws and all numbers of shots share one program: surplus labels weigh zero.
    x = replicate(train.x[rows].reshape(draws, -1, train.x.shape[1]))
    y = replicate(train.y[rows].reshape(draws, -1))
    queries = place(test)
    results = {}
    for n in shots:
        kept = np.broadcast_to(np.arange(max(shots)) < n, rows.shape[1:]).reshape(-1)
        correct = _correct(
            x,
            y,
            replicate(kept.astype(np.float32)),
            queries,
            c,
            num_classes=num_classes,
            max_iterations=max_iterations,
        )
        accuracy = to_host(correct).astype(np.float64) / len(test.x)
        results[f"{n}_shot"] = float(accuracy.mean())
        spread = accuracy.std(ddof=1) if draws > 1 else 0.0
        results[f"{n}_shot_interval"] = float(1.96 * spread / np.sqrt(draws))
    return results


def _draw(y: np.ndarray, num_classes: int, shots: int, draws: int, seed: int) -> np.ndarray:
    """Rows [draws, K, shots] of the bank, without replacement within a draw."""
    counts = np.bincount(y, minlength=num_classes)
    if counts.min() < shots:
        raise ConfigError(
            f"evals.fewshot.shots: found {shots}, expected at most {counts.min()}, the samples of "
            f"class {counts.argmin()} in the bank (a larger evals.bank holds more)"
        )
    members = [np.flatnonzero(y == label) for label in range(num_classes)]
    rngs = [np.random.default_rng((seed, draw)) for draw in range(draws)]
    return np.stack([[rng.permutation(rows)[:shots] for rows in members] for rng in rngs])


@functools.partial(jax.jit, static_argnames=("num_classes", "max_iterations"))
def _correct(
    x: jax.Array,
    y: jax.Array,
    weight: jax.Array,
    test: DeviceFeatures,
    c: jax.Array,
    *,
    num_classes: int,
    max_iterations: int,
) -> jax.Array:
    """How many test samples each draw's classifier gets right, [draws]."""
    fit = functools.partial(
        logistic.fit, num_classes=num_classes, c=c, max_iterations=max_iterations
    )
    models = jax.vmap(fit, in_axes=(0, 0, None))(x, y, weight)

    def score(model: logistic.Linear) -> jax.Array:
        right = jnp.argmax(model.logits(test.x), axis=-1) == test.y
        return jnp.sum(test.weight * right)

    return jax.lax.map(score, models)  # one draw at a time: [N, K] logits, not [draws, N, K]
