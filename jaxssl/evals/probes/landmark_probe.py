"""The landmark embedding of a pair discriminator: how well labels are linear in it.

Tosh, Krishnamurthy, Hsu, 2021, "Contrastive learning, multi-view redundancy, and linear models",
arXiv 2008.10150. phi(x) = (g(x, z_1), ..., g(x, z_m)) with the density ratio g(x, z) =
p(x, z) / (p(x) p(z)), and z_i drawn from the marginal of z. If both views alone predict the label y
nearly as well as together, mu(x) = E[E[y | Z] | X = x] does so too; and mu is nearly linear in phi,
with an error of the order of 1 / m.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features
from jaxssl.evals.subject import Subject
from jaxssl.evals.theory.conditional_independence import WHOLE, readout_accuracy, seen_banks
from jaxssl.methods import halves

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "landmarks": (16, 64, 256),
    "labels": 1000,
    "ridge": 1.0,
    "raw_half": "left",
    "seed": 0,
}


class Redundancy(NamedTuple):
    """What each view says of a label, and what both do; of finite views.

    Attributes:
      mu: E[E[y | Z] | X = x], [X].
      eps_x, eps_z: E (E[y | X] - E[y | X, Z])^2, and the same of Z: 0 where a view is enough.
      error: E (mu(X) - E[y | X, Z])^2, at most (sqrt(eps_x) + sqrt(eps_z))^2.
    """

    mu: np.ndarray
    eps_x: float
    eps_z: float
    error: float


def examine(
    subject: Subject,
    *,
    landmarks: tuple[int, ...] = (16, 64, 256),
    labels: int = 1000,
    ridge: float = 1.0,
    raw_half: str = "left",
    seed: int = 0,
) -> dict[str, float]:
    """Held-out accuracy of a ridge readout of the first m landmarks, by m.

    Args:
      subject: whose "pooled" output is a landmark embedding: `pair_discriminator`'s.
      landmarks: the m.
      labels: how many training labels, classes in proportion; all, where there are fewer.
      ridge: as of `conditional_independence.readout_accuracy`.
      raw_half: what raw input shows: the half that the encoder sees, or "whole".
      seed: of the choice of labels.

    Returns:
      "accuracy_<m>"; of raw input the same for all m.

    Raises:
      ConfigError: more landmarks than the embedding has, or an unknown half.
    """
    check_choice("evals.landmark_probe.raw_half", raw_half, (*halves.HALVES, WHOLE))
    train, test = seen_banks(subject, "pooled", raw_half)
    raw, width = subject.kind == "raw_input", train.x.shape[1]
    if not raw and max(landmarks) > width:
        raise ConfigError(
            f"evals.landmark_probe.landmarks: found {max(landmarks)}, expected at most the "
            f"embedding's {width}"
        )
    first = lambda bank, m: bank if raw else Features(bank.x[:, :m], bank.y, bank.index)
    return {
        f"accuracy_{m}": readout_accuracy(
            first(train, m),
            first(test, m),
            num_classes=subject.num_classes,
            labels=min(labels, len(train.y)),
            ridge=ridge,
            seed=seed,
        )
        for m in landmarks
    }


def ratios(joint: np.ndarray) -> np.ndarray:
    """g(x, z) = p(x, z) / (p(x) p(z)), [X, Z]; its mean over either marginal is 1.

    Args:
      joint: p(x, z) [X, Z], whose sums along both axes are above zero; scaled to sum 1.

    >>> ratios(np.array([[0.4, 0.1], [0.1, 0.4]])).round(6).tolist()
    [[1.6, 0.4], [0.4, 1.6]]
    """
    joint = joint / joint.sum()
    found: np.ndarray = joint / np.outer(joint.sum(axis=1), joint.sum(axis=0))
    return found


def through(embedding: np.ndarray, label: np.ndarray) -> np.ndarray:
    """1/m sum_i E[y | z_i] g(x, z_i), [N]: a linear function of phi, on average mu(x).

    Its squared error is, over draws of the landmarks, Var_Z(E[y | Z] g(x, Z)) / m. Tosh et al.,
    2021, arXiv 2008.10150.

    Args:
      embedding: phi [N, m].
      label: E[y | z_i] [m].
    """
    found: np.ndarray = embedding @ label / len(label)
    return found


def redundancy(joint: np.ndarray, label: np.ndarray) -> Redundancy:
    """How redundant two discrete views are about a label: `Redundancy`.

    Tosh et al., 2021, arXiv 2008.10150.

    Args:
      joint: p(x, z) [X, Z], whose sums along both axes are above zero; scaled to sum 1.
      label: E[y | x, z] [X, Z].
    """
    joint = joint / joint.sum()
    p, q = joint.sum(axis=1), joint.sum(axis=0)
    of_x, of_z = (joint * label).sum(axis=1) / p, (joint * label).sum(axis=0) / q
    mu = joint @ of_z / p
    mean = lambda guess: float((joint * (guess - label) ** 2).sum())
    return Redundancy(mu, mean(of_x[:, None]), mean(of_z[None]), mean(mu[:, None]))
