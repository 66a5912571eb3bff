"""Names of vision transformers in timm, DINO, DINOv2 and MAE.

All four name most arrays alike. They differ in the registers' name (timm "reg_token", DINOv2
"register_tokens"), in SwiGLU's (timm "mlp.fc1", DINOv2 "mlp.w12"), in DINOv2's groups of blocks
("blocks.<group>.<block>") and in what else is in the file: MAE's decoder has a mask token of its
own. The rows of "pos_embed" in front of the patches are for the class token, for it and the
registers, or missing.
"""

import math
import re

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions
from jaxssl.encoders.vit import ViT
from jaxssl.weights.entry import Entry, Family, State, leading, linear, norm, patches

OTHER_NAMES = {"register_tokens": "reg_token", ".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}
OUTSIDE = ("head.", "head_dist.", "dino_head.", "ibot_head.", "decoder_")


def _entries(encoder: ViT) -> list[Entry]:
    if encoder.frames != 1:
        raise ConfigError(f"encoder.frames: found {encoder.frames}, expected 1: a model of images")
    found = patches("patch_embed.proj", "patch_embedding", encoder.patch)
    if encoder.class_token:
        found.append(leading("cls_token", "class_token", 1))
    if encoder.registers:
        found.append(leading("reg_token", "registers", 1))
    if encoder.posemb == "learned":
        found.append(leading("pos_embed", "position_embedding", 1))
    if encoder.mask_token:
        found.append(leading("mask_token", "mask_token", 1))
    for i in range(encoder.drop_depth):
        found += _block(encoder, i)
    return found + norm("norm", "norm")


def _block(encoder: ViT, i: int) -> list[Entry]:
    blocks = encoder.transformer
    there = f"blocks.{i}"
    here = "transformer/blocks" if blocks.scan else f"transformer/block{i}"
    layer = i if blocks.scan else None
    first, last = ("gate_up", "down") if blocks.ffn == "swiglu" else ("up", "down")
    found = [
        *norm(f"{there}.norm1", f"{here}/norm1", layer=layer),
        *linear(f"{there}.attn.qkv", f"{here}/attention/qkv", bias=blocks.qkv_bias, layer=layer),
        *linear(f"{there}.attn.proj", f"{here}/attention/out", layer=layer),
        *norm(f"{there}.norm2", f"{here}/norm2", layer=layer),
        *linear(f"{there}.mlp.fc1", f"{here}/ffn/{first}", layer=layer),
        *linear(f"{there}.mlp.fc2", f"{here}/ffn/{last}", layer=layer),
    ]
    if blocks.layer_scale:
        for n in (1, 2):
            found.append(Entry(f"{there}.ls{n}.gamma", f"params/{here}/scale{n}", layer=layer))
    return found


def _finish(encoder: ViT, state: State) -> State:
    """timm has positions as an array, none for registers, and no mask token."""
    state = {name: value for name, value in state.items() if name != "mask_token"}
    if encoder.posemb != "learned":
        fixed = positions.sincos2d(encoder.width, _grid(encoder), _grid(encoder))
        state["pos_embed"] = np.pad(fixed, ((int(encoder.class_token), 0), (0, 0)))[None]
    if encoder.registers and encoder.class_token:
        place = state["pos_embed"]
        state["cls_token"] = state["cls_token"] + place[:, :1]
        state["pos_embed"] = place[:, 1:]
    return state


def _prepare(encoder: ViT, state: State) -> State:
    found: State = {}
    for name, value in state.items():
        name = re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", name)
        for other, known in OTHER_NAMES.items():
            name = name.replace(other, known)
        found[name] = value
    of_decoder = any(name.startswith("decoder_") for name in found)
    if of_decoder or not encoder.mask_token:  # nothing is ever masked without one
        found.pop("mask_token", None)
    return _place(encoder, found)


def _place(encoder: ViT, state: State) -> State:
    """`state` with positions of the encoder's own grid, and of the class token where learned."""
    table = state.get("pos_embed")
    extra, registers = int(encoder.class_token), encoder.registers
    if table is None or table.ndim != 3 or table.shape[2] != encoder.width:
        return state
    own = _grid(encoder)
    split = _split(table.shape[1], (extra, extra + registers, 0), own)
    if split is None:
        return state
    front, grid = split
    lead, patches_ = table[0, :front], table[0, front:]
    state = dict(state)
    if front > extra and "reg_token" in state:
        state["reg_token"] = state["reg_token"] + lead[None, extra:]
    class_place = lead[:extra] if front else np.zeros((extra, encoder.width), np.float32)
    if encoder.posemb == "learned":
        state["pos_embed"] = np.concatenate([class_place, interpolate(patches_, grid, own)])[None]
        return state
    if not np.allclose(patches_, positions.sincos2d(encoder.width, grid, grid), atol=1e-4):
        raise ConfigError("pos_embed: found other positions, expected the sinusoids of sincos2d")
    if extra and "cls_token" in state:
        state["cls_token"] = state["cls_token"] + class_place[None]
    del state["pos_embed"]
    return state


def _split(
    rows: int, fronts: tuple[int, ...], own: tuple[int, int]
) -> tuple[int, tuple[int, int]] | None:
    """(rows before the patches, grid of the patches); a grid other than the own one is square."""
    for front in fronts:
        if rows - front == math.prod(own):
            return front, own
    for front in fronts:
        side = math.isqrt(max(rows - front, 0))
        if side and side**2 == rows - front:
            return front, (side, side)
    return None


def interpolate(table: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Positions [h * w, D] of `grid` = (h, w), resized bicubically to `size`, as DINO and MAE do.

    Keys 1981, "Cubic convolution interpolation for digital image processing", with a = -0.75, cell
    centres aligned, no antialiasing, edges repeated: PyTorch's bicubic interpolation. (The
    encoder's own is `jax.image.resize`: a = -0.5, antialiased.) Where the two are equal, it is the
    identity.

    >>> interpolate(np.ones((16, 8)), (4, 4), (2, 3)).shape
    (6, 8)
    """
    if grid == size:
        return table
    rows, columns = (_bicubic(n, m) for n, m in zip(grid, size, strict=True))
    image = table.reshape(*grid, -1).astype(np.float64)
    resized = np.einsum("ih,jw,hwd->ijd", rows, columns, image)
    return resized.reshape(math.prod(size), -1).astype(np.float32)


def _bicubic(length: int, size: int, a: float = -0.75) -> np.ndarray:
    """The matrix [size, length] of one axis."""
    where = (np.arange(size) + 0.5) * length / size - 0.5
    base = np.floor(where).astype(int)
    matrix = np.zeros((size, length))
    for offset in range(-1, 3):
        x = np.abs(where - base - offset)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        place = np.clip(base + offset, 0, length - 1)
        np.add.at(matrix, (np.arange(size), place), np.where(x <= 1, near, far))
    return matrix


def _grid(encoder: ViT) -> tuple[int, int]:
    height, width = encoder.image_size
    return height // encoder.patch, width // encoder.patch


FAMILY = Family(_entries, OUTSIDE, _finish, _prepare)
