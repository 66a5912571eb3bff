"""The encoders and heads of a description in plain PyTorch, each with our layers and shapes."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Unsupported

Outputs = dict[str, Tensor]
# depth -> (blocks of each stage, whether blocks are bottlenecks)
RESNETS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "leaky_relu": nn.LeakyReLU}


def check_off(section: Mapping[str, Any], where: str, off: Mapping[str, Any]) -> None:
    """Raise Unsupported where a field is not at the one value that these networks have."""
    for name, value in off.items():
        if section.get(name, value) != value:
            raise Unsupported(f"{where}.{name}: found {section[name]!r}, the peer has {value!r}")


class ConvNet(nn.Module):
    """Space to depth, then conv 3x3 - norm - ReLU, mean pool."""

    def __init__(self, e: Mapping[str, Any], channels: int):
        super().__init__()
        self.fold, self.width = e["space_to_depth"], e["widths"][-1]
        layers: list[nn.Module] = []
        before = channels * self.fold**2
        for width, stride in zip(e["widths"], e["strides"], strict=True):
            bias = e["norm"] == "none"
            layers.append(nn.Conv2d(before, width, 3, stride, padding=1, bias=bias))
            if e["norm"] == "batch":
                layers.append(nn.BatchNorm2d(width))
            elif e["norm"] == "group":
                layers.append(nn.GroupNorm(math.gcd(32, width), width))
            layers.append(nn.ReLU(inplace=True))
            before = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Outputs:
        """[N, C, H, W] -> pooled [N, D], tokens [N, T, D]."""
        if self.fold > 1:
            x = F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last)
        x = self.layers(x)
        return {"pooled": x.mean((2, 3)), "tokens": x.flatten(2).mT}


class ResBlock(nn.Module):
    """relu(shortcut(x) + f(x)); f is 3x3, 3x3, or as a bottleneck 1x1, 3x3, 1x1."""

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool, zero: bool):
        super().__init__()
        out = width * 4 if bottleneck else width
        shapes = [(before, width, 3, stride), (width, out, 3, 1)]
        if bottleneck:
            shapes = [(before, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        layers: list[nn.Module] = []
        for i, o, kernel, step in shapes:
            conv = nn.Conv2d(i, o, kernel, step, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(o), nn.ReLU(inplace=True)]
        last = layers[-2]
        assert isinstance(last, nn.BatchNorm2d)
        if zero:
            nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != out:
            conv = nn.Conv2d(before, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """[N, c, h, w] -> [N, c', h', w']."""
        return F.relu(self.layers(x) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Residual network with the stem for ImageNet or for small images."""

    def __init__(self, e: Mapping[str, Any], channels: int):
        super().__init__()
        counts, bottleneck = RESNETS[e["depth"]]
        first = 64 * e["width_multiplier"]
        kernel, stride = (7, 2) if e["stem"] == "imagenet" else (3, 1)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, first, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        if e["stem"] == "imagenet":
            layers.append(nn.MaxPool2d(3, 2, 1))
        before = first
        for stage, count in enumerate(counts):
            for i in range(count):
                width, stride = first * 2**stage, 2 if stage and not i else 1
                layers.append(ResBlock(before, width, stride, bottleneck, e["zero_init_last"]))
                before = width * (4 if bottleneck else 1)
        self.layers, self.width = nn.Sequential(*layers), before

    def forward(self, x: Tensor) -> Outputs:
        """[N, C, H, W] -> pooled [N, D], tokens [N, T, D]."""
        x = self.layers(x)
        return {"pooled": x.mean((2, 3)), "tokens": x.flatten(2).mT}


class Block(nn.Module):
    """A pre-norm transformer block with fused attention."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qkv_bias: bool = True):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, D] -> [N, T, D]."""
        n, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, d))
        return x + self.ffn(self.norm2(x))


class ViT(nn.Module):
    """Vision transformer; of `kept` patches alone where a call names them."""

    place: Tensor

    def __init__(self, e: Mapping[str, Any], channels: int):
        super().__init__()
        fixed = dict(frames=1, registers=0, mask_token=False, ffn="mlp", layer_scale=0.0)
        check_off(e, "encoder", fixed)
        width, self.patch, self.pool = e["width"], e["patch"], e["pool"]
        self.grid = e["image_size"] // self.patch
        self.width = width * (2 if self.pool == "cls_mean" else 1)
        self.embed = nn.Conv2d(channels, width, self.patch, self.patch)
        self.extra = int(bool(e["class_token"]))
        if self.extra:
            self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        if e["posemb"] == "learned":
            self.place = nn.Parameter(0.02 * torch.randn(1, self.extra + self.grid**2, width))
        else:
            zeros = torch.zeros(1, self.extra, width)
            table = torch.cat([zeros, sincos2d(width, self.grid)], 1)
            self.register_buffer("place", table)
        heads, ratio, bias = e["heads"], e["mlp_ratio"], e["qkv_bias"]
        self.blocks = nn.Sequential(*(Block(width, heads, ratio, bias) for _ in range(e["depth"])))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Outputs:
        """[N, C, H, W], kept [N, M] or None -> pooled [N, D], tokens [N, T or M, D]."""
        x = self.embed(x)
        side = x.shape[-1]
        place = self.place[:, self.extra :]
        if side != self.grid:
            table = place.mT.unflatten(2, (self.grid, self.grid))
            place = F.interpolate(table, (side, side), mode="bicubic").flatten(2).mT
        x = x.flatten(2).mT + place
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        if self.extra:
            first = self.class_token + self.place[:, :1]
            x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x))
        tokens = x[:, self.extra :]
        pooled = {"cls": lambda: x[:, 0], "mean": lambda: tokens.mean(1)}
        pooled["cls_mean"] = lambda: torch.cat([x[:, 0], tokens.mean(1)], 1)
        return {"pooled": pooled[self.pool](), "tokens": tokens}


def sincos2d(width: int, side: int) -> Tensor:
    """Fixed positions [1, T, D]: for column x and row y, [sin xf, cos xf, sin yf, cos yf]."""
    frequencies = 10000.0 ** (-4 * torch.arange(width // 4) / width)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (x, y)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return torch.cat(waves, 1)[None]


class MLP(nn.Module):
    """Linear - norm - activation, repeated, and a last linear: [N, D] -> [N, P]."""

    def __init__(self, h: Mapping[str, Any], before: int):
        super().__init__()
        layers: list[nn.Module] = []
        for i, width in enumerate(h["widths"]):
            last = i == len(h["widths"]) - 1
            normed = h["norm"] != "none" and (not last or h["last_norm"])
            bias = (not last or h["last_bias"]) and not (normed and h["norm"] == "batch")
            layers.append(nn.Linear(before, width, bias=bias))
            if normed:
                affine = not last or h["last_affine"]
                kind: Any = nn.BatchNorm1d if h["norm"] == "batch" else nn.LayerNorm
                key = "affine" if h["norm"] == "batch" else "elementwise_affine"
                layers.append(kind(width, **{key: affine}))
            if not last:
                layers.append(ACTIVATIONS[h["activation"]]())
            before = width
        self.layers, self.width = nn.Sequential(*layers), before

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, P]."""
        return self.layers(x)


class Linear(nn.Module):
    """One linear layer."""

    def __init__(self, h: Mapping[str, Any], before: int):
        super().__init__()
        self.width = h["width"] or before
        self.layer = nn.Linear(before, self.width, bias=h["bias"])

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, P]."""
        return self.layer(x)


class Prototypes(nn.Module):
    """Scores of embeddings against learned rows."""

    def __init__(self, h: Mapping[str, Any], before: int):
        super().__init__()
        self.vectors = nn.Parameter(before**-0.5 * torch.randn(h["count"], before))
        self.unit_input, self.unit_rows, self.width = (
            h["normalize_input"],
            h["weight_norm"],
            h["count"],
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, K]."""
        rows = F.normalize(self.vectors, dim=-1) if self.unit_rows else self.vectors
        return F.linear(F.normalize(x, dim=-1) if self.unit_input else x, rows)


class Decoder(nn.Module):
    """Kept tokens and mask tokens through transformer blocks, to a prediction for every patch."""

    place: Tensor

    def __init__(self, h: Mapping[str, Any], before: int):
        super().__init__()
        check_off(h, "student.decoder", dict(class_token=False, posemb=None))
        grid, width = h["grid"], h["width"]
        sides = [grid, grid] if isinstance(grid, int) else list(grid)
        if len(sides) != 2 or sides[0] != sides[1]:
            raise Unsupported(f"student.decoder.grid: found {grid}, the peer has square ones")
        self.count, self.width = sides[0] ** 2, h["patch_values"] or before
        self.embedding = nn.Linear(before, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.register_buffer("place", sincos2d(width, sides[0]))
        blocks = (Block(width, h["heads"], h["mlp_ratio"]) for _ in range(h["depth"]))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.prediction = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, self.width)

    def forward(self, x: Tensor, restore: Tensor) -> Tensor:
        """[N, M, D] and where each patch is in [kept, hidden] [N, T] -> [N, T, P]."""
        x = self.embedding(x)
        blank = self.mask_token.to(x.dtype).expand(len(x), self.count - x.shape[1], -1)
        x = torch.cat([x, blank], 1).gather(1, restore[..., None].expand(-1, -1, x.shape[2]))
        return self.prediction(self.norm(self.blocks(x + self.place)))


ENCODERS: dict[str, Any] = {"convnet": ConvNet, "resnet": ResNet, "vit": ViT}
HEADS: dict[str, Any] = {
    "mlp": MLP,
    "linear": Linear,
    "prototypes": Prototypes,
    "decoder": Decoder,
}


def build(description: Mapping[str, Any]) -> nn.ModuleDict:
    """The encoder and the heads, by the names of our networks."""
    encoder, heads = description["encoder"], description["heads"]
    _known("encoder", encoder["name"], ENCODERS)
    nets = nn.ModuleDict()
    nets["encoder"] = made = ENCODERS[encoder["name"]](encoder, description["channels"])
    token_width = encoder["width"] if encoder["name"] == "vit" else made.width
    widths = {"pooled": made.width, "tokens": token_width}
    for name, head in heads.items():
        _known(f"student.{name}", head["name"], HEADS)
        nets[name] = part = HEADS[head["name"]](head, widths[head["reads"]])
        widths[head["output"]] = part.width
    return nets


def _known(where: str, name: str, table: Mapping[str, Any]) -> None:
    if name not in table:
        raise Unsupported(f"{where}: the peer has no {name!r}; it has {', '.join(sorted(table))}")
