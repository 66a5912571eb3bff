"""Our loss terms in plain PyTorch; the formulas are those of `jaxssl.losses`."""

import torch
import torch.nn.functional as F
from torch import Tensor


def lejepa_prediction(z: Tensor, *, num_global: int) -> Tensor:
    """Mean squared distance of every view from the mean of the global ones; z [V, B, P]."""
    return (z[:num_global].mean(0) - z).square().mean()


def sigreg(z: Tensor, directions: Tensor, *, num_knots: int = 17, t_max: float = 3.0) -> Tensor:
    """Epps-Pulley test along directions [P, S], as published: all knots at once, [B, S, T]."""
    t = torch.linspace(0, t_max, num_knots, device=z.device)
    weights = torch.full_like(t, 2 * t_max / (num_knots - 1))
    weights[0] = weights[-1] = t_max / (num_knots - 1)
    phi = torch.exp(-t.square() / 2)
    angle = (z @ directions).unsqueeze(-1) * t
    gap = (angle.cos().mean(0) - phi).square() + angle.sin().mean(0).square()
    return len(z) * (gap @ (weights * phi)).mean()


def nt_xent(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """Find the other view among all others of the batch."""
    h = F.normalize(torch.cat([z1, z2]), dim=-1)
    logits = (h @ h.T / temperature).fill_diagonal_(float("-inf"))
    batch = len(z1)
    other = torch.arange(2 * batch, device=h.device).roll(batch)
    return F.cross_entropy(logits, other)


def byol(p: Tensor, t: Tensor) -> Tensor:
    """Squared distance of the unit vectors."""
    return 2 - 2 * F.cosine_similarity(p, t).mean()


def dino(
    student: Tensor,
    teacher: Tensor,
    *,
    center: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Cross-entropy of every view with the centred, sharpened teacher of another."""
    targets = ((teacher - center) / teacher_temperature).softmax(-1)
    logs = (student / student_temperature).log_softmax(-1)
    each = -torch.einsum("abk,vbk->av", targets, logs) / student.shape[1]
    pairs = each.numel() - len(teacher)
    return (each.sum() - each.diagonal().sum()) / pairs


def mae(
    prediction: Tensor, target: Tensor, mask: Tensor, *, normalize_target: bool = True
) -> Tensor:
    """Mean squared error on the masked patches; [N, T, P] twice and [N, T]."""
    if normalize_target:
        variance, mean = torch.var_mean(target, -1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    return ((prediction - target).square().mean(-1) * mask).sum() / mask.sum()


def vicreg(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Tensor:
    """Views that agree, features that vary and do not correlate."""
    hinge = covariance = z1.new_zeros(())
    for z in (z1, z2):
        centred = z - z.mean(0)
        c = centred.T @ centred / (len(z) - 1)
        hinge = hinge + F.relu(1 - (c.diagonal() + 1e-4).sqrt()).mean()
        off = c.square().sum() - c.diagonal().square().sum()
        covariance = covariance + off / z.shape[1]
    return (
        invariance_weight * F.mse_loss(z1, z2)
        + variance_weight * hinge / 2
        + covariance_weight * covariance
    )


def barlow_twins(z1: Tensor, z2: Tensor, *, off_diagonal_weight: float = 5e-3) -> Tensor:
    """The cross-correlation matrix driven to the identity."""
    u1, u2 = (F.batch_norm(z, None, None, training=True) for z in (z1, z2))
    c = u1.T @ u2 / len(z1)
    diagonal = c.diagonal()
    off = c.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal_weight * off
