"""What the prediction of one part of an input from another says of labels, by least squares.

Lee, Lei, Saunshi, Zhuo, 2021, "Predicting what you already know helps: provable self-supervised
learning", arXiv 2008.01064. Where the parts X1 and X2 are independent given the class Y, and the
class means of X2 are of full rank, E[Y | X1] is a linear function of psi(X1) = E[X2 | X1]: as few
labels as there are classes find it. How far a data set is from that cannot be seen without what is
hidden in it, so nothing here claims the bound of real data.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.linalg import eigh
from sklearn.linear_model import LinearRegression, Ridge

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features, standardise
from jaxssl.evals.subject import Subject
from jaxssl.evals.theory.risk_decomposition import stratified
from jaxssl.methods import halves

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "outputs": ("prediction", "pooled"),
    "labels": (50, 500),
    "ridge": 1.0,
    "raw_half": "top",
    "seed": 0,
}
OF_BANK = ("labels",)
WHOLE = "whole"


class Readout(NamedTuple):
    """An affine map: weight [D, K], bias [K]."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, K]."""
        found: np.ndarray = x @ self.weight + self.bias
        return found


class Correlated(NamedTuple):
    """Functions of two parts that are as alike as can be.

    Attributes:
      f, g: of the first and of the second part, [..., k]: mean 0, covariance I.
      correlations: rho [k], descending, in [0, 1].
    """

    f: np.ndarray
    g: np.ndarray
    correlations: np.ndarray


def examine(
    subject: Subject,
    *,
    outputs: tuple[str, ...] = ("prediction", "pooled"),
    labels: tuple[int, ...] = (50, 500),
    ridge: float = 1.0,
    raw_half: str = "top",
    seed: int = 0,
) -> dict[str, float]:
    """Held-out accuracy of ridge readouts of several outputs with few labels.

    Args:
      subject: an encoder that sees one part of its input, such as `split_prediction`'s.
      outputs: of the encoder: the theory's, E[X2 | X1], and that of the layer before it.
      labels: how many training labels, classes in proportion.
      ridge: as of `readout_accuracy`.
      raw_half: what raw input shows: the half that the encoder sees, or "whole".
      seed: of the choice of labels.

    Returns:
      "<output>_<labels>": accuracy; of raw input the same whatever the output.

    Raises:
      ConfigError: more labels than the bank has samples, an unknown output or half.
    """
    check_choice("evals.conditional_independence.raw_half", raw_half, (*halves.HALVES, WHOLE))
    found = {}
    for output in outputs:
        train, test = seen_banks(subject, output, raw_half)
        for count in labels:
            found[f"{output}_{count}"] = readout_accuracy(
                train,
                test,
                num_classes=subject.num_classes,
                labels=count,
                ridge=ridge,
                seed=seed,
                field="evals.conditional_independence.labels",
            )
    return found


def seen_banks(subject: Subject, output: str, raw_half: str) -> tuple[Features, Features]:
    """The train and test banks of an output; of raw input, of one half of it alone.

    Args:
      subject: the encoder and the run.
      output: of the encoder.
      raw_half: of `halves.HALVES`, or "whole".
    """
    config = subject.program.config.evals
    change = None
    if subject.kind == "raw_input" and raw_half != WHOLE:
        name = subject.field[0]

        @jax.jit
        def change(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            return {**batch, name: halves.cut(batch[name], raw_half)}

    bank = lambda source, limit: subject.features(source, limit=limit, output=output, change=change)
    return bank(subject.program.source, config.bank), bank(subject.test_source, config.test)


def readout_accuracy(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    labels: int,
    ridge: float,
    seed: int = 0,
    field: str = "labels",
) -> float:
    """Held-out accuracy of `least_squares` on one-hot labels of a part of the bank.

    Features go through `features.standardise`, by the whole bank, which needs no labels.

    Args:
      train, test: the banks.
      num_classes: K.
      labels: how many of the training labels are used, classes in proportion.
      ridge: the penalty.
      seed: of the choice of labels.
      field: what error messages begin with.

    Raises:
      ConfigError: more labels than samples.
    """
    if labels > len(train.y):
        raise ConfigError(f"{field}: found {labels}, expected at most the bank's {len(train.y)}")
    train, test = standardise(train, test)
    used = stratified(train.y, labels, seed)
    one_hot = np.eye(num_classes)[train.y[used]]
    scores = least_squares(train.x[used], one_hot, ridge=ridge)(test.x)
    return float((scores.argmax(axis=1) == test.y).mean())


def least_squares(x: np.ndarray, y: np.ndarray, *, ridge: float = 0.0) -> Readout:
    """argmin_{W, b} |Y - X W - b|^2 + ridge |W|^2, b unpenalised, by scikit-learn, in float64.

    Args:
      x: [N, D].
      y: [N, K].
      ridge: 0 for plain least squares, of least norm where there are several.
    """
    model = Ridge(alpha=ridge, solver="svd") if ridge else LinearRegression()
    model.fit(x.astype(np.float64), y.astype(np.float64))
    return Readout(np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_))


def partial_covariance(x1: np.ndarray, x2: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sigma_12 - Sigma_1Y Sigma_Y^+ Sigma_Y2 [D1, D2]: what is left between x1 and x2 given y.

    Zero, to N^-1/2, where they are uncorrelated given y: with joint Gaussians, or with y one-hot,
    wherever they are independent given it. Lee et al., 2021, arXiv 2008.01064.

    Args:
      x1, x2: [N, D1], [N, D2].
      y: [N, K], such as one-hot labels; a pseudo-inverse takes their dependence.
    """
    a, b, c = (z.astype(np.float64) - z.mean(axis=0, dtype=np.float64) for z in (x1, x2, y))
    n = len(a)
    inverse = np.linalg.pinv(c.T @ c / n, hermitian=True)
    found: np.ndarray = a.T @ b / n - (a.T @ c / n) @ inverse @ (c.T @ b / n)
    return found


def correlated(x1: np.ndarray, x2: np.ndarray, k: int, *, ridge: float = 0.0) -> Correlated:
    """The k pairs of functions, linear in given features, of largest correlation.

        max E f^T g, E f = E g = 0, E f f^T = E g g^T = I_k

    Canonical correlation analysis; nonlinear in what the features are nonlinear in. It is as well
    the least E |f - g|^2, which is 2 (k - sum rho) (`disagreement`). Lee et al., 2021, arXiv
    2008.01064, section on nonlinear CCA; Breiman, Friedman (1985), Estimating optimal
    transformations for multiple regression and correlation.

    Args:
      x1, x2: [N, D1], [N, D2]; directions without variance are left out.
      k: at most the rank of either.
      ridge: added to the variances, as a part of their mean; f and g are then a little short of I.

    Returns:
      `Correlated`, f and g [N, k].

    Raises:
      ConfigError: k above the rank.
    """
    a, b = (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64) for x in (x1, x2))
    left, right = (_whitening(z.T @ z / len(z), ridge) for z in (a, b))
    if not 1 <= k <= min(left.shape[1], right.shape[1]):
        raise ConfigError(
            f"k: found {k}, expected 1 ... {min(left.shape[1], right.shape[1])}, the ranks"
        )
    u, rho, v = np.linalg.svd(left.T @ (a.T @ b / len(a)) @ right)
    return Correlated(a @ left @ u[:, :k], b @ right @ v[:k].T, np.clip(rho[:k], 0, 1))


def ace(joint: np.ndarray, k: int) -> Correlated:
    """The same over all functions, of two discrete parts whose joint distribution is known.

    The singular functions of the operator (T h)(x1) = E[h(X2) | X1], after the constant.

    Args:
      joint: p(x1, x2) [S1, S2], whose sums along both axes are above zero; scaled to sum 1.
      k: at most min(S1, S2) - 1.

    Returns:
      `Correlated`, f [S1, k] and g [S2, k]: values, not samples.

    Raises:
      ConfigError: k out of range.

    >>> ace(np.array([[0.4, 0.1], [0.1, 0.4]]), 1).correlations.round(6).tolist()
    [0.6]
    """
    if not 1 <= k < min(joint.shape):
        raise ConfigError(f"k: found {k}, expected 1 ... {min(joint.shape) - 1}")
    joint = joint.astype(np.float64) / joint.sum(dtype=np.float64)
    p, q = np.sqrt(joint.sum(axis=1)), np.sqrt(joint.sum(axis=0))
    # Without the constant, whose singular value is 1.
    u, rho, v = np.linalg.svd(joint / np.outer(p, q) - np.outer(p, q))
    return Correlated(u[:, :k] / p[:, None], v[:k].T / q[:, None], np.clip(rho[:k], 0, 1))


def disagreement(f: np.ndarray, g: np.ndarray) -> float:
    """E |f - g|^2 of f, g [N, k]; with both whitened, 2 (k - sum of their correlations)."""
    return float(((f - g) ** 2).sum(axis=1).mean())


def _whitening(covariance: np.ndarray, ridge: float) -> np.ndarray:
    """W [D, rank] with W^T covariance W = I."""
    values, vectors = eigh(covariance)
    used = values > 1e-10 * max(values[-1], 1e-300)
    white: np.ndarray = vectors[:, used] / np.sqrt(values[used] + ridge * values.mean())
    return white
