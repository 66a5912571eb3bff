"""Episodes of few-shot classification: a few classes, a few labels of each, over many draws."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.features import Features, replicate, standardise, to_host
from jaxssl.evals.probes import logistic
from jaxssl.losses.vectors import unit

CLASSIFIERS = ("centroid", "logistic")

PROTOCOL: dict[str, Any] = {
    "ways": 5,
    "shots": 1,
    "queries": 15,
    "episodes": 600,
    "classifier": "centroid",
    "c": 1.0,
    "max_iterations": 100,
    "seed": 0,
}
BETTER = {"*_interval": None}

_TOGETHER = 100  # episodes at a time


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    classifier: str = "centroid",
    c: float = 1.0,
    max_iterations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Mean accuracy over N-way K-shot M-query episodes drawn from the test bank.

    "centroid" says of a query x the class argmax_c cos(x, m_c), m_c the mean of the unit vectors
    of its support; "logistic" is `logistic.fit` on the support. Features go through
    `features.standardise`, so that the cosine is about the mean of the train bank. Vinyals et al.
    (2016), Matching networks for one shot learning, arXiv 1606.04080 (episodes); Wang, Chao,
    Weinberger, van der Maaten (2019), SimpleShot: Revisiting nearest-neighbor classification for
    few-shot learning, arXiv 1911.04623 (centred unit vectors).

    Args:
      train: gives the statistics that standardise.
      test: x [N, D]; support and queries of an episode are different samples of it.
      num_classes: labels lie in 0 ... num_classes - 1.
      ways: classes of an episode, of those that have shots + queries samples.
      shots: labelled samples of each class.
      queries: scored samples of each class.
      episodes: how many; they depend on the labels and the seed alone.
      classifier: "centroid" or "logistic".
      c, max_iterations: of "logistic", as of `linear`.
      seed: of the episodes.

    Returns:
      {"accuracy": mean over episodes, 0 ... 1; "accuracy_interval": half the width of its 95 %
      interval, 1.96 s / sqrt(episodes)}.

    Raises:
      ConfigError: an unknown classifier, or too few classes with enough samples.
    """
    if classifier not in CLASSIFIERS:
        raise ConfigError(
            f"evals.episodes.classifier: found {classifier!r}, expected one of "
            f"{', '.join(CLASSIFIERS)}{near(classifier, CLASSIFIERS)}"
        )
    rows = draw(test.y, num_classes, ways, shots + queries, episodes, seed)
    correct = _correct(
        replicate(standardise(train, test)[1].x),
        replicate(rows),
        c,
        shots=shots,
        classifier=classifier,
        max_iterations=max_iterations,
    )
    accuracy = to_host(correct).astype(np.float64) / (ways * queries)
    spread = accuracy.std(ddof=1) if episodes > 1 else 0.0
    return {
        "accuracy": float(accuracy.mean()),
        "accuracy_interval": float(1.96 * spread / np.sqrt(episodes)),
    }


def draw(
    y: np.ndarray, num_classes: int, ways: int, samples: int, episodes: int, seed: int
) -> np.ndarray:
    """int32 rows [episodes, ways, samples] of different samples of different classes.

    Raises:
      ConfigError: fewer than `ways` classes have that many samples.
    """
    members = [np.flatnonzero(y == label) for label in range(num_classes)]
    members = [rows for rows in members if len(rows) >= samples]
    if len(members) < ways:
        raise ConfigError(
            f"evals.episodes.ways: found {ways}, expected at most {len(members)}, the classes "
            f"with shots + queries = {samples} samples (a larger evals.test holds more)"
        )

    def one(episode: int) -> list[np.ndarray]:
        rng = np.random.default_rng((seed, episode))
        chosen = rng.permutation(len(members))[:ways]
        return [rng.permutation(members[label])[:samples] for label in chosen]

    return np.asarray([one(episode) for episode in range(episodes)], np.int32)


@functools.partial(jax.jit, static_argnames=("shots", "classifier", "max_iterations"))
def _correct(
    x: jax.Array,
    rows: jax.Array,
    c: jax.Array,
    *,
    shots: int,
    classifier: str,
    max_iterations: int,
) -> jax.Array:
    """How many queries each episode's classifier gets right, [episodes]."""
    ways = rows.shape[1]

    def centroid(support: jax.Array, queries: jax.Array) -> jax.Array:
        centres = unit(unit(support).mean(axis=1))
        return jnp.matmul(unit(queries), centres.T, precision=jax.lax.Precision.HIGHEST)

    def regression(support: jax.Array, queries: jax.Array) -> jax.Array:
        labels = jnp.repeat(jnp.arange(ways), shots)
        model = logistic.fit(
            support.reshape(ways * shots, -1),
            labels,
            jnp.ones(ways * shots),
            num_classes=ways,
            c=c,
            max_iterations=max_iterations,
        )
        return model.logits(queries)

    logits = centroid if classifier == "centroid" else regression

    def one(rows: jax.Array) -> jax.Array:
        samples = x[rows]
        found = jnp.argmax(logits(samples[:, :shots], samples[:, shots:]), axis=-1)
        return jnp.sum(found == jnp.arange(ways)[:, None])

    return jax.lax.map(one, rows, batch_size=min(_TOGETHER, len(rows)))
