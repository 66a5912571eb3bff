"""Random views of a uint8 batch by batched tensor operations, with our transforms and their order.

The formulas are those of `jaxssl.modalities.image`. Parameters are drawn for each view; the order
of a jitter is fixed, which costs the same as a random one.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Unsupported

LUMA = (0.2989, 0.587, 0.114)
KNOWN = (
    *("crop", "flip", "vertical_flip", "affine", "elastic", "jitter", "grayscale", "blur"),
    *("solarize", "noise"),
)
CROP_TRIES = 10


def check(views: Mapping[str, Any]) -> None:
    """Raise Unsupported for what `make` does not do."""
    for name, group in views.items():
        for field in ("turns", "tiles"):
            if group[field]:
                raise Unsupported(f"views.{name}.{field}: the peer has none")
        for transform in group["transforms"]:
            if transform not in KNOWN:
                raise Unsupported(f"views.{name}.{transform}: the peer has no such transform")


def make(images: Tensor, group: Mapping[str, Any], mean: Tensor, std: Tensor) -> Tensor:
    """V views of every image of uint8 [B, C, H, W]: [V * B, C, s, s] float32, view after view."""
    t, size, count = group["transforms"], group["size"], group["count"]
    x = images.float().div_(255.0).contiguous().repeat(count, 1, 1, 1)
    x = _cut(x, t, size)
    if "affine" in t or "elastic" in t:
        x = _warp(x, t.get("affine"), t.get("elastic"))
    if "jitter" in t:
        x = _jitter(x, t["jitter"])
    if "grayscale" in t:
        x = torch.where(_chance(x, t["grayscale"]), _luma(x), x)
    if "blur" in t:
        x = torch.where(_chance(x, t["blur"]), _blur(x, t["blur"]), x)
    if "solarize" in t:
        inverted = torch.where(x >= t["solarize"]["threshold"], 1 - x, x)
        x = torch.where(_chance(x, t["solarize"]), inverted, x)
    if "noise" in t:
        sigma = _uniform(x, (0.0, t["noise"]["sigma"]))
        x = torch.addcmul(x, sigma, torch.randn_like(x)).clamp_(0, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def _uniform(x: Tensor, ends: tuple[float, float]) -> Tensor:
    """One number for each image, [N, 1, 1, 1]."""
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(*ends)


def _chance(x: Tensor, transform: Mapping[str, Any]) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, device=x.device) < transform["probability"]


def _cut(x: Tensor, t: Mapping[str, Any], size: int) -> Tensor:
    """Crops, resizing and flips, as products with weights along both axes."""
    number, _, height, width = x.shape
    flips = [name for name in ("flip", "vertical_flip") if name in t]
    if "crop" not in t and (height, width) == (size, size):
        for name, axis in (("flip", 3), ("vertical_flip", 2)):
            if name in flips:
                x = torch.where(_chance(x, t[name]), x.flip(axis), x)
        return x
    if "crop" in t:
        top, left, tall, wide = _boxes(number, height, width, t["crop"], x.device)
    else:
        top = left = torch.zeros(number, device=x.device)
        tall, wide = torch.full_like(top, height), torch.full_like(top, width)
    rows = resize_weights(top, tall, height, size)
    columns = resize_weights(left, wide, width, size)
    if "flip" in flips:
        columns = torch.where(_chance(x, t["flip"])[:, 0], columns.flip(1), columns)
    if "vertical_flip" in flips:
        rows = torch.where(_chance(x, t["vertical_flip"])[:, 0], rows.flip(1), rows)
    return _separable(x, rows, columns)


def _separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, None] @ x @ columns[:, None].mT


def _boxes(
    number: int, height: int, width: int, crop: Mapping[str, Any], device: Any
) -> tuple[Tensor, ...]:
    """The boxes (top, left, height, width) of random resized crops, each [N]."""
    if crop["method"] != "bilinear":
        raise Unsupported(f"crop.method: found {crop['method']!r}, the peer has 'bilinear'")
    draws = torch.rand(2, number, CROP_TRIES, device=device)
    low, high = crop["scale"]
    area = height * width * (low + (high - low) * draws[0])
    logs = torch.tensor(crop["ratio"], device=device).log()
    aspect = (logs[0] + (logs[1] - logs[0]) * draws[1]).exp()
    wide, tall = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.byte().argmax(1, keepdim=True)
    found = fits.any(1)
    wide = torch.where(found, wide.gather(1, first)[:, 0], min(width, height))
    tall = torch.where(found, tall.gather(1, first)[:, 0], min(width, height))
    corner = torch.rand(2, number, device=device)
    top = (corner[0] * (height - tall + 1)).floor()
    left = (corner[1] * (width - wide + 1)).floor()
    return top, left, tall, wide


def resize_weights(start: Tensor, extent: Tensor, source: int, size: int) -> Tensor:
    """Antialiased bilinear weights [N, size, source] of the pixels [start, start + extent)."""
    scale = (extent / size)[:, None]
    centre = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * scale
    pixel = torch.arange(source, device=start.device) + 0.5
    distance = (pixel - centre[..., None]).abs() / scale.clamp(min=1.0)[..., None]
    ends = start[:, None, None], (start + extent)[:, None, None]
    inside = (pixel > ends[0]) & (pixel < ends[1])
    weights = (1 - distance).clamp_(min=0) * inside
    return weights / weights.sum(-1, keepdim=True)


def _warp(x: Tensor, affine: Mapping[str, Any] | None, elastic: Mapping[str, Any] | None) -> Tensor:
    number, _, size, _ = x.shape
    axis = torch.arange(size, device=x.device) - (size - 1) / 2
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    u, v = u[None], v[None]
    if affine:
        draw = lambda name: _uniform(x, affine[name])[..., 0]
        u, v = u - draw("shift") * size, v - draw("shift") * size
        angle, shear = draw("rotation").deg2rad(), draw("shear")
        scale, aspect = draw("log_scale"), draw("log_aspect")
        cos, sin = angle.cos(), angle.sin()
        u, v = (
            ((cos - shear * sin) * u - (sin + shear * cos) * v) * (-scale - aspect / 2).exp(),
            (sin * u + cos * v) * (-scale + aspect / 2).exp(),
        )
    grid = torch.stack([u.expand(number, size, size), v.expand(number, size, size)], -1)
    if elastic:
        shape = (number, 2, elastic["grid"], elastic["grid"])
        nodes = elastic["sigma"] * size * torch.randn(shape, device=x.device)
        moved = F.interpolate(nodes, (size, size), mode="bicubic")
        grid = grid + moved.permute(0, 2, 3, 1)
    fill = (affine or elastic or {})["fill"]
    padding = {"zero": "zeros", "edge": "border"}[fill]
    return F.grid_sample(x, grid * (2 / size), padding_mode=padding, align_corners=False)


def _luma(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    grey: Any = sum(weight * x[:, i : i + 1] for i, weight in enumerate(LUMA))
    return grey


def _jitter(x: Tensor, t: Mapping[str, Any]) -> Tensor:
    """Brightness, contrast, saturation, hue, addition; the identity where it is not drawn."""
    chosen = _chance(x, t)

    def draw(name: str, idle: float) -> Tensor | None:
        if tuple(t[name]) == (idle, idle):
            return None
        return torch.where(chosen, _uniform(x, t[name]), idle)

    if (brightness := draw("brightness", 1.0)) is not None:
        x = (x * brightness).clamp_(0, 1)
    if (contrast := draw("contrast", 1.0)) is not None:
        x = torch.lerp(_luma(x).mean((1, 2, 3), keepdim=True), x, contrast).clamp_(0, 1)
    if (saturation := draw("saturation", 1.0)) is not None:
        x = torch.lerp(_luma(x), x, saturation).clamp_(0, 1)
    if (hue := draw("hue", 0.0)) is not None:
        x = _hue(x, hue)
    if (addition := draw("additive", 0.0)) is not None:
        x = (x + addition).clamp_(0, 1)
    return x


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    over = 1 / torch.where(chroma > 0, chroma, 1.0)
    other = torch.where(green >= blue, 2 + (blue - red) * over, 4 + (red - green) * over)
    top = (red >= green) & (red >= blue)
    sixths = torch.where(top, (green - blue) * over, other) + 6 * turn[:, 0]
    channels = []
    for n in (5.0, 3.0, 1.0):
        k = (n + sixths) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 1).clamp_(0, 1)


def _blur(x: Tensor, t: Mapping[str, Any]) -> Tensor:
    """Gaussian blur, the border mirrored, as products with weights along both axes."""
    size = x.shape[-1]
    half = (t["taps"] or max(3, size // 10 // 2 * 2 + 1)) // 2
    sigma = _uniform(x, t["sigma"])[:, 0]
    at = torch.arange(size, device=x.device)

    def kernel(offset: Tensor) -> Tensor:
        return torch.where(offset.abs() <= half, torch.exp(-0.5 * (offset / sigma).square()), 0.0)

    out, into = at[:, None], at[None, :]
    before = torch.where(into > 0, kernel(out + into), 0.0)
    after = torch.where(into < size - 1, kernel(2 * (size - 1) - into - out), 0.0)
    weights = kernel(out - into) + before + after
    weights = weights / weights.sum(-1, keepdim=True)
    return _separable(x, weights, weights)
