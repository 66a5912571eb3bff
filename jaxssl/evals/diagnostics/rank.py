"""Diagnostics of features: how many dimensions they use, how widely, and how they lie.

Numbers of spectra are of `jaxssl.evals.diagnostics.spectrum` and can be had from here as well.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.evals.diagnostics.spectrum import (
    alpha_req,
    effective_dimension,
    effective_rank,
    lidar,
    nesum,
    rankme,
)
from jaxssl.evals.features import replicate

__all__ = [
    "alignment",
    "alpha_req",
    "class_variances",
    "effective_dimension",
    "effective_rank",
    "lidar",
    "nesum",
    "rank",
    "rankme",
    "sigreg",
    "std",
    "uniformity",
]

_CHUNK = 1024  # rows whose distances to all others are held at a time


def rank(x: np.ndarray) -> dict[str, float]:
    """{"rankme": ..., "std": ...} of features x [N, D]: collapse shows in one or the other.

    >>> sorted(rank(np.eye(4, dtype=np.float32)))
    ['rankme', 'std']
    """
    return {"rankme": rankme(x), "std": std(x)}


def std(x: np.ndarray) -> float:
    """Mean over the dimensions of the standard deviation over the samples; 0 when collapsed.

    >>> std(np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.5
    """
    return float(x.astype(np.float64).std(axis=0).mean())


def alignment(x: np.ndarray) -> float:
    """How far apart the views of a sample lie, as squared distance of unit vectors; 0 is closest.

        mean_n 2 mean_v |u_nv - mean_v u_nv|^2 = E |u - u'|^2,    u = x / |x|

    u and u' are drawn independently among the q views of a sample, and may be the same one; over
    pairs of two different views the mean is q / (q - 1) times this. Wang, Isola (2020),
    Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere, arXiv 2005.10242, with exponent 2; Dubois, Hashimoto, Liang (2023), arXiv
    2302.03068, for the form with means. Of the members of classes in place of views it is twice the
    "intra_variance" of `class_variances` of unit vectors.

    Args:
      x: [N, q, D], q views of each sample, at least 2.

    Returns:
      0 ... 2.

    Raises:
      ConfigError: fewer than two views, or another number of axes.

    >>> alignment(np.array([[[3.0, 0], [-1, 0]]]))  # opposite views
    2.0
    """
    if x.ndim != 3 or x.shape[1] < 2:
        raise ConfigError(f"x: found {x.shape}, expected [N, q, D], q at least 2")
    u = _unit(x)
    return float(2 * ((u - u.mean(axis=1, keepdims=True)) ** 2).sum(axis=-1).mean())


def uniformity(x: np.ndarray, *, t: float = 2.0) -> float:
    """How evenly features spread over the sphere: the log of a mean Gaussian potential.

        log mean_{i < j} exp(-t |u_i - u_j|^2),    u = x / |x|

    Less is more even: 0 where all are the same. Wang, Isola (2020), Understanding contrastive
    representation learning through alignment and uniformity on the hypersphere, arXiv 2005.10242.

    Args:
      x: [N, D], N at least 2; N^2 pairs are visited, 1,024 rows at a time.
      t: sharpness of the potential.

    Raises:
      ConfigError: fewer than two samples.

    >>> uniformity(np.array([[1.0, 0], [-2, 0]]))  # a squared distance of 4
    -8.0
    """
    if len(x) < 2:
        raise ConfigError(f"x: found {len(x)} rows, expected at least 2")
    u = _unit(x)
    total = 0.0
    for start in range(0, len(u), _CHUNK):
        rows = u[start : start + _CHUNK]
        # 2 - 2 cos, except that a vector of zeros has no direction.
        squares = (rows**2).sum(1)[:, None] + (u**2).sum(1) - 2 * rows @ u.T
        potential = np.exp(-t * np.maximum(squares, 0))
        here = np.arange(len(rows))
        potential[here, start + here] = 0  # a row and itself are no pair
        total += float(potential.sum())
    return float(np.log(total / (len(u) * (len(u) - 1))))


def sigreg(x: np.ndarray, *, slices: int = 256, seed: int = 0) -> float:
    """How far features are from an isotropic Gaussian of any mean and scale.

        mean_s EP(z a_s),    z = (x - mean_N(x)) / sqrt(mean_D(var_N(x)))

    EP and the random directions a_s are of `jaxssl.losses.sigreg`: Balestriero, LeCun (2025),
    LeJEPA, arXiv 2511.08544. About 1 for an isotropic Gaussian, whatever N; otherwise it grows
    with N: compare numbers of one N alone. The loss takes features as they are.

    Args:
      x: [N, D].
      slices: S, how many directions.
      seed: of the directions.
    """
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    scale = np.sqrt((centred**2).mean())
    z = (centred / (scale if scale > 0 else 1.0)).astype(np.float32)
    return float(_sigreg(replicate(z), seed, slices=slices))


@functools.partial(jax.jit, static_argnames="slices")
def _sigreg(z: jax.Array, seed: jax.Array, *, slices: int) -> jax.Array:
    key = jax.random.key(seed)
    return jnp.asarray(losses.sigreg(z, losses.random_directions(key, z.shape[1], slices)))


def class_variances(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How far samples scatter about the means of their classes, and these about their own mean.

        intra_variance = mean_c mean_{i in c} |x_i - m_c|^2
        inter_variance = mean_c |m_c - m|^2,    m = mean_c m_c
        nc1 = trace(pinv(S_between) S_within)

    S_between is the covariance of the class means, S_within the mean over classes of the
    covariance inside a class, both unbiased. nc1 is 0 where classes have collapsed to points. Of
    balanced classes the two variances sum to mean_i |x_i - m|^2. Papyan, Han, Donoho (2020),
    Prevalence of neural collapse during the terminal phase of deep learning training, arXiv
    2008.08186; Dubois, Hashimoto, Liang (2023), arXiv 2302.03068, for the conventions.

    Args:
      x: [N, D].
      y: [N], labels; a class of one sample has no scatter and is left out of everything.

    Returns:
      {"intra_variance", "inter_variance", "nc1"}, each at least 0; "nc1" is NaN where all class
      means are equal.

    Raises:
      ConfigError: fewer than two classes have two samples.

    >>> x = np.array([[3.0, 1], [3, -1], [-3, 1], [-3, -1]])
    >>> {k: round(v, 6) for k, v in class_variances(x, np.array([0, 0, 1, 1])).items()}
    {'intra_variance': 1.0, 'inter_variance': 9.0, 'nc1': 0.0}
    """
    labels, counts = np.unique(y, return_counts=True)
    members = [x[y == label].astype(np.float64) for label in labels[counts > 1]]
    if len(members) < 2:
        raise ConfigError(
            f"y: found {len(members)} classes of at least two samples, expected at least 2"
        )
    means = np.stack([rows.mean(axis=0) for rows in members])
    residuals = [rows - mean for rows, mean in zip(members, means, strict=True)]
    apart = means - means.mean(axis=0)
    scatter = [(rows**2).sum(axis=1).mean() for rows in residuals]
    nc1 = float("nan")
    if (apart**2).sum() > 1e-24 * (means**2).sum():  # else it is rounding
        # pinv(A^T A) = pinv(A) pinv(A)^T: no matrix of D by D is formed.
        inverse = np.linalg.pinv(apart, rcond=1e-10) * np.sqrt(len(members) - 1)
        seen = [((rows @ inverse) ** 2).sum() / (len(rows) - 1) for rows in residuals]
        nc1 = float(np.mean(seen))
    return {
        "intra_variance": float(np.mean(scatter)),
        "inter_variance": float((apart**2).sum(axis=1).mean()),
        "nc1": nc1,
    }


def _unit(x: np.ndarray) -> np.ndarray:
    """x / |x| over the last axis in float64; a vector of zeros stays."""
    x = x.astype(np.float64)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
