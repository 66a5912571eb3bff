"""Where the error of a linear probe comes from: four parts that add up to it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import DeviceFeatures, Features, place, replicate, standardise
from jaxssl.evals.probes import logistic

PROTOCOL: dict[str, Any] = {
    "subset": 50_000,
    "supervised_accuracy": 1.0,
    "c": 1000.0,
    "max_iterations": 1000,
    "tolerance": 1e-5,
    "seed": 0,
}
BETTER = {"*": "lower"}


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    subset: int = 50_000,
    supervised_accuracy: float = 1.0,
    c: float = 1000.0,
    max_iterations: int = 1000,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> dict[str, float]:
    """The risk of the usual linear probe as a sum of four errors, each with its own remedy.

    With err(A -> B) the share of B that a linear probe of A gets wrong, the samples D of
    pre-training, a part S of them and the rest C = D - S:

        approximation          r_sup                              the architecture cannot fit D
        usability              err(D -> D) - r_sup                the classes are not linear
        probe_generalisation   err(C -> S) - err(D -> D)          the probe has seen too few labels
        encoder_generalisation err(D -> test) - err(C -> S)       the encoder has not seen the test
        aggregate              err(D -> test), their sum

    S is a random part of D of the size of the test set (less where `subset` is less, and at most
    half of D), every class in proportion; the encoder has seen it, only the probe has not.
    Dubois, Hashimoto, Liang, 2023, "Evaluating self-supervised learning via risk decomposition",
    arXiv 2302.03068.

    The probes are `logistic.fit` under a penalty so weak that they are near the optimum of the
    plain cross-entropy: one that stopped early would count as unusable features. A part may be
    negative, by chance or because the encoder was not trained on the bank (random init, raw
    input); it is reported as it is.

    Args:
      train: x [N, D], samples that the encoder was pre-trained on.
      test: samples that nothing was trained on.
      num_classes: K.
      subset: the most samples of S.
      supervised_accuracy: 1 - r_sup, on D, of the same architecture trained on D with labels,
        end to end; 1, where there is no such run, leaves approximation 0, as a part of usability.
      c: inverse strength of the penalty, as in scikit-learn.
      max_iterations: of L-BFGS.
      tolerance: on the largest entry of its gradient.
      seed: of the choice of S.

    Returns:
      the five errors by name, fractions.

    Raises:
      ConfigError: an accuracy above 1, or a bank of fewer than two samples.
    """
    if supervised_accuracy > 1:
        raise ConfigError(
            f"evals.risk_decomposition.supervised_accuracy: found {supervised_accuracy}, expected "
            "a fraction above 0 and at most 1"
        )
    size = min(subset, len(test.y), len(train.y) // 2)
    if size < 1:
        raise ConfigError(f"evals.bank: found {len(train.y)} samples, expected at least 2")
    held_out = stratified(train.y, size, seed)
    train, test = standardise(train, test)
    bank, queries = place(train), place(test)
    err = functools.partial(
        _wrong,
        bank,
        queries,
        c=c,
        num_classes=num_classes,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    on_train, on_test = err(bank.weight, bank.weight)
    # One program for both probes: what one must not see weighs zero.
    inside = replicate(np.pad(held_out.astype(np.float32), (0, len(bank.y) - len(held_out))))
    on_held_out, _ = err(bank.weight - inside, inside)
    fitted, held, aggregate = (
        float(on_train) / len(train.y),
        float(on_held_out) / size,
        float(on_test) / len(test.y),
    )
    approximation = 1 - supervised_accuracy
    return {
        "approximation": approximation,
        "usability": fitted - approximation,
        "probe_generalisation": held - fitted,
        "encoder_generalisation": aggregate - held,
        "aggregate": aggregate,
    }


def stratified(y: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Which [N] of the samples are in a random part of `size`, every class in proportion.

    Of a class with n of the N samples, it holds `size` n / N, rounded up or down.

    >>> y = np.array([0] * 6 + [1] * 3)
    >>> np.bincount(y[stratified(y, 3, seed=0)]).tolist()
    [2, 1]
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    # Class after class, shuffled within each: equal steps from a random start pick in proportion.
    order = order[np.argsort(y[order], kind="stable")]
    places = (np.arange(size) * len(y) + rng.integers(len(y))) // size
    picked = np.zeros(len(y), bool)
    picked[order[places]] = True
    return picked


@functools.partial(jax.jit, static_argnames=("num_classes", "max_iterations", "tolerance"))
def _wrong(
    train: DeviceFeatures,
    test: DeviceFeatures,
    fitted: jax.Array,
    scored: jax.Array,
    *,
    c: jax.Array,
    num_classes: int,
    max_iterations: int,
    tolerance: float,
) -> tuple[jax.Array, jax.Array]:
    """Errors among the `scored` training samples and all test samples of a probe of the `fitted`.

    Both are weights [N].
    """
    model = logistic.fit(
        train.x,
        train.y,
        fitted,
        num_classes=num_classes,
        c=c,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )

    def count(bank: DeviceFeatures, weight: jax.Array) -> jax.Array:
        return jnp.sum(weight * (jnp.argmax(model.logits(bank.x), axis=-1) != bank.y))

    return count(train, scored), count(test, test.weight)
