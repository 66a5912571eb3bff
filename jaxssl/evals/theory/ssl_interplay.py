"""The closed-form optimum of variance-covariance methods on given features, and its spectrum.

Cabannes, Kiani, Balestriero, LeCun, Bietti, 2023, "The SSL interplay: augmentations, inductive
bias, and generalization", arXiv 2302.02774. With two views xi, xi' of a sample, beta in [0, 1] and
psi = Theta phi of k dimensions on features phi of p numbers,

  L = beta E |psi(xi) - psi(xi')|^2 + |E psi psi^T - I|^2 + 2 lambda |Theta|^2
    = |Psi Psi* - T_lambda|^2 + const,    T_lambda = (1 - beta) I + beta T - lambda K^-1

with T the augmentation operator (T f)(xi) = E f(xi'), and K the kernel of phi. So the best psi are
eigenfunctions of T_lambda: invariant ones that phi finds simple come first, and what has an
eigenvalue below zero is left out. Nothing is centred: the constant is one of the eigenfunctions.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh

from jaxssl.config.errors import ConfigError
from jaxssl.evals import of_views
from jaxssl.evals.features import Features
from jaxssl.evals.probes import linear
from jaxssl.evals.subject import Subject

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "samples": 1000,
    "views": 4,
    "components": 64,
    "dimensions": 16,
    "beta": 1.0,
    "penalty": 1e-3,
    "eigenvalues": 5,
    "c": 1.0,
    "max_iterations": 100,
    "seed": 0,
}
BETTER: dict[str, str | None] = {"accuracy": "higher", "*": None}


class Moments(NamedTuple):
    """Second moments of the features of views.

    Attributes:
      whole: Sigma = E phi phi^T [p, p].
      shared: Sigma_X = E_X (E[phi | X] E[phi | X]^T) [p, p], what two views have in common.
    """

    whole: np.ndarray
    shared: np.ndarray


class Solution(NamedTuple):
    """The best linear representation.

    Attributes:
      theta: [k, p]; psi = theta phi. Any rotation of its rows is as good.
      eigenvalues: nu [k], those of T_lambda, descending; a row with nu <= 0 is zero.
      loss: the least value of `loss`, k - sum_i max(nu_i, 0)^2.
    """

    theta: np.ndarray
    eigenvalues: np.ndarray
    loss: float


def examine(
    subject: Subject,
    *,
    samples: int = 1000,
    views: int = 4,
    components: int = 64,
    dimensions: int = 16,
    beta: float = 1.0,
    penalty: float = 1e-3,
    eigenvalues: int = 5,
    c: float = 1.0,
    max_iterations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """The spectrum of the run's augmentation as the features see it, and a probe of the optimum.

    phi are the features, centred, brought to a mean variance of 1 over their directions of largest
    variance (`components` of them at most), and a constant 1, all by the training samples' views.

    Args:
      subject: the encoder and the run.
      samples: training samples whose views give the moments.
      views: of each, at least 2.
      components: p - 1, directions of the features that are kept.
      dimensions: k of the representation.
      beta: weight of the invariance, at most 1.
      penalty: lambda.
      eigenvalues: how many of the operator's are reported, from the largest.
      c, max_iterations: of the probe, as `linear.evaluate`.
      seed: of the views.

    Returns:
      "eigenvalue_<i>" from 1, the constant's: 1 where nothing is lost to augmentation, 0 where all
      is; "trace", their sum over all p; "kept", rows of theta that are not zero; "loss", of the
      optimum; "accuracy", of a linear probe of psi on the plain bank.

    Raises:
      ConfigError: one view, or beta above 1.
    """
    if views < 2:
        raise ConfigError(f"evals.ssl_interplay.views: found {views}, expected at least 2")
    if beta > 1:
        raise ConfigError(f"evals.ssl_interplay.beta: found {beta}, expected at most 1")
    x, _ = of_views.features(subject, subject.program.source, count=views, limit=samples, seed=seed)
    phi = Basis.of(x, components)
    found = moments(phi(x))
    spectrum = operator_spectrum(found)
    best = solve(found, k=dimensions, beta=beta, penalty=penalty)
    psi = lambda bank: Features((phi(bank.x) @ best.theta.T).astype(np.float32), bank.y, bank.index)
    probed = linear.evaluate(
        psi(subject.train),
        psi(subject.test),
        num_classes=subject.num_classes,
        c=c,
        max_iterations=max_iterations,
    )
    return {
        **{f"eigenvalue_{i + 1}": float(v) for i, v in enumerate(spectrum[:eigenvalues])},
        "trace": float(spectrum.sum()),
        "kept": float((best.eigenvalues > 0).sum()),
        "loss": best.loss,
        "accuracy": probed["accuracy"],
    }


class Basis(NamedTuple):
    """Features as few numbers of comparable scale, and a constant: [..., D] -> [..., p]."""

    mean: np.ndarray
    directions: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """[..., D] -> [..., p], float64; the last is 1."""
        few = (x - self.mean) @ self.directions
        return np.concatenate([few, np.ones((*few.shape[:-1], 1))], axis=-1)

    @classmethod
    def of(cls, x: np.ndarray, components: int) -> "Basis":
        """The principal directions of x [..., D], at most `components`, at one scale for all."""
        rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
        mean = rows.mean(axis=0)
        values, vectors = eigh(np.cov(rows, rowvar=False, ddof=0).reshape(len(mean), len(mean)))
        values, vectors = values[::-1][:components], vectors[:, ::-1][:, :components]
        # Directions without variance would be rounding.
        used = values > 1e-10 * max(values[0], 1e-300)
        scale = np.sqrt(values[used].mean()) if values[0] > 0 else 1.0
        return cls(mean, vectors[:, used] / scale)


def moments(phi: np.ndarray, *, all_views: bool = False) -> Moments:
    """Sigma and Sigma_X of the features of views.

        Sigma_X = E_n 1 / (V (V - 1)) sum_{v != w} phi_nv phi_nw^T

    A view paired with itself would add its own noise and make T look too large: such pairs are left
    out, unless the V views are all that there are (`all_views`), where Sigma_X is that of their
    means.

    Args:
      phi: [N, V, p], V at least 2 unless `all_views`.
      all_views: whether the views of a sample are its whole distribution, rather than draws.

    Raises:
      ConfigError: one drawn view a sample, or another number of axes.
    """
    if phi.ndim != 3 or (phi.shape[1] < 2 and not all_views):
        raise ConfigError(f"phi: found {phi.shape}, expected [N, V, p], V at least 2")
    phi = phi.astype(np.float64)
    n, views, _ = phi.shape
    rows = phi.reshape(n * views, -1)
    whole, mean = rows.T @ rows / len(rows), phi.mean(axis=1)
    shared = mean.T @ mean / n
    if not all_views:
        shared = (views * shared - whole) / (views - 1)
    return Moments(whole, shared)


def solve(
    found: Moments, *, k: int, beta: float, penalty: float = 0.0, tolerance: float = 1e-10
) -> Solution:
    """The best theta, from ((1 - beta) Sigma + beta Sigma_X - lambda I) v = nu Sigma v.

    With v^T Sigma v = 1 the rows are sqrt(max(nu_i, 0)) v_i of the k largest nu. Cabannes et al.,
    2023, arXiv 2302.02774. Directions in which no view has any feature are left out before, as
    K^-1 has no meaning there.

    Args:
      found: `Moments`.
      k: dimensions of psi, at least 1; those that phi does not have are zero.
      beta: in [0, 1]; 0 does not look at the augmentation.
      penalty: lambda; a threshold on the spectrum, half of what multiplies |Theta|^2 in L.
      tolerance: of the least eigenvalue of Sigma, as a part of the largest.

    Raises:
      ConfigError: beta or k out of range.
    """
    if not 0 <= beta <= 1 or k < 1:
        raise ConfigError(f"found beta {beta} and k {k}, expected 0 <= beta <= 1 and k >= 1")
    white = _whitening(found.whole, tolerance)
    matrix = (1 - beta) * found.whole + beta * found.shared - penalty * np.eye(len(found.whole))
    nu, u = eigh(white.T @ matrix @ white)
    nu, v = nu[::-1][:k], (white @ u[:, ::-1])[:, :k]
    nu = np.pad(nu, (0, k - len(nu)))
    v = np.pad(v, [(0, 0), (0, k - v.shape[1])])
    positive = np.maximum(nu, 0)
    return Solution((np.sqrt(positive) * v).T, nu, float(k - (positive**2).sum()))


def loss(theta: np.ndarray, found: Moments, *, beta: float, penalty: float = 0.0) -> float:
    """The loss of psi = theta phi, from the moments of phi.

        2 beta tr Theta (Sigma - Sigma_X) Theta^T + |Theta Sigma Theta^T - I|^2
          + 2 lambda |Theta|^2

    The first is beta E |psi(xi) - psi(xi')|^2, without a factor 1/2; the covariance is not centred.
    Cabannes et al., 2023, arXiv 2302.02774.

    Args:
      theta: [k, p].
      found: `Moments`.
      beta, penalty: as of `solve`.
    """
    invariance = 2 * np.trace(theta @ (found.whole - found.shared) @ theta.T)
    covariance = theta @ found.whole @ theta.T - np.eye(len(theta))
    value = beta * invariance + (covariance**2).sum() + 2 * penalty * (theta**2).sum()
    return float(value)


def operator_spectrum(found: Moments, tolerance: float = 1e-10) -> np.ndarray:
    """Eigenvalues of T on the functions that are linear in phi, descending.

    Sigma_X v = t Sigma v; in [0, 1], to the noise of the estimate. 1 for functions that
    augmentation does not change, as the constant is where phi has it.

    Args:
      found: `Moments`.
      tolerance: as of `solve`.
    """
    white = _whitening(found.whole, tolerance)
    values: np.ndarray = eigh(white.T @ found.shared @ white, eigvals_only=True)[::-1]
    return values


def _whitening(whole: np.ndarray, tolerance: float) -> np.ndarray:
    """W [p, rank] with W^T Sigma W = I."""
    values, vectors = eigh(whole)
    used = values > tolerance * values[-1]
    if not used.any():
        raise ConfigError("phi: found features that are all zero, expected some that are not")
    white: np.ndarray = vectors[:, used] / np.sqrt(values[used])
    return white
