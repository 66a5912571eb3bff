"""Vision transformer: patches to tokens, transformer blocks, class token and/or mean pooling.

Patches are square, or boxes of several frames of a video or slices of a volume.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv:2010.11929; size Ti of Touvron et
al. 2021, arXiv:2012.12877; size g of Oquab et al. 2024, "DINOv2", arXiv:2304.07193; registers of
Darcet et al. 2024, arXiv:2309.16588; boxes of Arnab et al. 2021, "ViViT: A Video Vision
Transformer", arXiv:2103.15691, with the separable positions of Feichtenhofer et al. 2022, "Masked
Autoencoders As Spatiotemporal Learners", arXiv:2205.09113.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.by_name import check_choice, check_positive
from jaxssl.config.errors import ConfigError
from jaxssl.encoders import positions
from jaxssl.encoders.groups import Group, Groups, gather, views_of
from jaxssl.encoders.transformer import Transformer, check_transformer, layer_norm


class Size(NamedTuple):
    """What the name of a size stands for."""

    width: int
    depth: int
    heads: int
    ffn: str = "mlp"
    layer_scale: float = 0.0


SIZES = {
    "Ti": Size(192, 12, 3),
    "S": Size(384, 12, 6),
    "B": Size(768, 12, 12),
    "L": Size(1024, 24, 16),
    "H": Size(1280, 32, 16),
    "g": Size(1536, 40, 24, "swiglu", 1e-5),
}
POOLS = ("cls", "mean", "cls_mean")
POSEMBS = ("learned", "sincos2d", "sincos3d")

_token_init = nn.initializers.truncated_normal(0.02)


class ViT(nn.Module):
    """Vision transformer; `build` describes the fields.

    Attributes:
      captures: the further outputs that a call can be asked for.
      joins_groups: whether groups of views of different sizes can pass together.
    """

    transformer: Transformer
    width: int
    patch: int
    image_size: tuple[int, int]
    pool: str
    class_token: bool
    registers: int
    posemb: str
    mask_token: bool
    dtype: Any = jnp.float32
    frames: int = 1
    tubelet: int = 1

    captures = ("layers", "class_layers", "last", "attention")
    joins_groups = True  # takes tuples of groups of views

    @property
    def drop_depth(self) -> int:
        """How many blocks drop-path scales [B, drop_depth] are for."""
        return self.transformer.depth

    @nn.compact
    def __call__(
        self,
        x: Groups,
        *,
        train: bool,
        keep: Groups | None = None,
        tokens: Groups | None = None,
        mask: Groups | None = None,
        capture: tuple[str, ...] = (),
    ) -> Any:
        """Encode images, clips or volumes.

        Views of several sizes can pass together, as a tuple of groups of views: each argument is
        then a tuple, [B, V, ...] for the [B, ...] below, None for a group without it, and what is
        returned is a list of such outputs. Every block sees all of them at once.

        Args:
          x: [B, H, W, C], float, for one frame, else [B, frames, H, W, C]; H and W divisible by
            the patch size, whatever `image_size`.
          train: changes nothing here; every encoder takes it.
          keep: drop-path scales [B, depth], or None for no drop.
          tokens: indices [B, M] of the patches to keep, row by row over the grid (t, h, w); the
            others are never computed on, and the outputs follow the order of `tokens`.
          mask: [B, T], true where the mask token replaces the patch's content.
          capture: further outputs. "layers" [B, L, T, D] and "class_layers" [B, L, D]: every
            block's patch tokens and class token, before the final norm. "last" [B, 1 + T, D]: the
            last block's class token, where there is one, and patch tokens, before the final norm.
            "attention" [B, H, T', T']: the last block's, over class token, registers, patches.

        Returns: "pooled" [B, D] ([B, 2 D] for pool "cls_mean") and "tokens" [B, T, D], the patch
          tokens after the final norm; M in place of T where `tokens` is given.

        Errors: ConfigError for shapes that do not fit, a mask without `mask_token`, or an unknown
          capture.
        """
        del train
        given = (x, keep, tokens, mask)
        if isinstance(x, tuple):
            none = (None,) * len(x)
            groups = [Group(*g) for g in zip(*(none if a is None else a for a in given))]
            return self._encode(groups, capture)
        (out,) = self._encode([Group(*given).each(lambda a: jnp.expand_dims(a, 1))], capture)
        return {name: a[:, 0] for name, a in out.items()}

    def _encode(
        self, groups: Sequence[Group], capture: tuple[str, ...]
    ) -> list[dict[str, jax.Array]]:
        """What `__call__` says, of groups of views [B, V, ...]."""
        views = [group.x.shape[1] for group in groups]
        flat = [group.each(lambda a: rearrange(a, "b v ... -> (b v) ...")) for group in groups]
        grids = [self._check(group, capture) for group in flat]
        table = self._position_table(grids[0][0])
        embed = nn.Dense(self.width, dtype=self.dtype, name="patch_embedding")
        blank = self.param("mask_token", _token_init, (self.width,)) if self.mask_token else None
        front = self._front()

        rows = []
        for (pixels, _, kept, hidden), grid in zip(flat, grids):
            place = self._positions(table, grid)
            class_place, place = place[: int(self.class_token)], place[int(self.class_token) :]
            y = self._patches(pixels)
            place = jnp.broadcast_to(place, (y.shape[0], *place.shape))
            if kept is not None:
                y, place = gather(y, kept), gather(place, kept)
                hidden = None if hidden is None else jnp.take_along_axis(hidden, kept, axis=1)
            y = embed(y)
            if hidden is not None and blank is not None:  # the first says the second
                y = jnp.where(hidden[..., None], blank.astype(self.dtype), y)
            lead = [front[0] + class_place, *front[1:]] if self.class_token else front
            lead = [jnp.broadcast_to(t, (y.shape[0], *t.shape)).astype(self.dtype) for t in lead]
            rows.append(jnp.concatenate([*lead, y + place.astype(self.dtype)], axis=1))

        parts = tuple((v, row.shape[1]) for v, row in zip(views, rows))
        scales = [group.keep for group in groups if group.keep is not None]
        whole = [rearrange(row, "(b v) t d -> b (v t) d", v=v) for row, v in zip(rows, views)]
        y, layers, attention = self.transformer(
            jnp.concatenate(whole, axis=1),
            parts=parts,
            keep=jnp.concatenate(scales, axis=1) if scales else None,
            layers="layers" in capture or "class_layers" in capture,
            weights="attention" in capture,
        )
        normed = views_of(layer_norm(self.dtype, "norm")(y), parts)
        lasts = views_of(y, parts) if "last" in capture else ()
        stacks = views_of(layers, parts, axis=2) if layers is not None else ()

        first, extra = int(self.class_token) + self.registers, int(self.class_token)
        outputs = []
        for z, last, stack, weights in itertools.zip_longest(normed, lasts, stacks, attention):
            found = {"pooled": self._pool(z, first), "tokens": z[:, :, first:]}
            if last is not None:
                found["last"] = jnp.concatenate([last[:, :, :extra], last[:, :, first:]], axis=2)
            if stack is not None:
                stack = jnp.moveaxis(stack, 2, 1)  # [B, V, L, N, D]
                found |= {"layers": stack[..., first:, :], "class_layers": stack[..., 0, :]}
            if weights is not None:
                found["attention"] = weights
            outputs.append({name: found[name] for name in ("pooled", "tokens", *capture)})
        return outputs

    def _patches(self, x: jax.Array) -> jax.Array:
        """[B, (frames), H, W, C] -> [B, T, u p p C]."""
        return rearrange(
            (x[:, None] if x.ndim == 4 else x).astype(self.dtype),
            "b (t u) (h p) (w q) c -> b (t h w) (u p q c)",
            u=self.tubelet,
            p=self.patch,
            q=self.patch,
        )

    def _position_table(self, frames: int) -> tuple[jax.Array, ...]:
        """What is learned of positions: a table over the plane and, for clips, one over time."""
        if self.posemb != "learned":
            return ()
        own = math.prod(self._own_grid())
        shape = (int(self.class_token) + own, self.width)
        plane = self.param("position_embedding", _token_init, shape)
        if self.frames == 1:
            return (plane,)
        return (plane, self.param("temporal_embedding", _token_init, (frames, self.width)))

    def _own_grid(self) -> tuple[int, int]:
        return (self.image_size[0] // self.patch, self.image_size[1] // self.patch)

    def _positions(self, table: tuple[jax.Array, ...], grid: tuple[int, int, int]) -> jax.Array:
        """Positions [1 + T, D], or [T, D] without a class token, float32."""
        own = self._own_grid()
        extra = int(self.class_token)
        if table:
            plane, *times = table
            front, place = plane[:extra], positions.interpolate(plane[extra:], own, grid[1:])
            if times:
                place = rearrange(times[0][:, None] + place, "t s d -> (t s) d")
            return jnp.concatenate([front, place])
        if self.posemb == "sincos2d":
            fixed = positions.sincos2d(self.width, own, grid[1:])
        else:
            fixed = positions.sincos3d(self.width, (grid[0], *own), grid)
        return jnp.pad(jnp.asarray(fixed), ((extra, 0), (0, 0)))

    def _front(self) -> list[jax.Array]:
        """What stands before the patches: the class token [1, D], then the registers."""
        front = []
        if self.class_token:
            front.append(self.param("class_token", _token_init, (1, self.width)))
        if self.registers:
            front.append(self.param("registers", _token_init, (self.registers, self.width)))
        return front

    def _pool(self, x: jax.Array, first: int) -> jax.Array:
        """[B, V, N, D] -> [B, V, D]."""
        mean = x[:, :, first:].mean(2, dtype=jnp.float32).astype(self.dtype)
        if self.pool == "mean":
            return mean
        cls = x[:, :, 0]
        return cls if self.pool == "cls" else jnp.concatenate([cls, mean], axis=-1)

    def _check(self, group: Group, capture: tuple[str, ...]) -> tuple[int, int, int]:
        """The grid of patches (t, h, w), once the arguments are known to fit."""
        x, keep, _, mask = group
        whole = x.shape[1:] if x.ndim == 5 else (1, *x.shape[1:])
        if len(whole) != 4 or whole[0] != self.frames or any(n % self.patch for n in whole[1:3]):
            form = "[B, H, W, C]" if self.frames == 1 else f"[B, {self.frames}, H, W, C]"
            raise ConfigError(
                f"encoder: found images of shape {x.shape}, expected {form} with H and W "
                f"divisible by encoder.patch = {self.patch}"
            )
        grid = (
            self.frames // self.tubelet,
            whole[1] // self.patch,
            whole[2] // self.patch,
        )
        patches = (x.shape[0], math.prod(grid))
        if keep is not None and keep.shape != (x.shape[0], self.drop_depth):
            raise ConfigError(
                f"encoder: found drop-path scales of shape {keep.shape}, "
                f"expected {(x.shape[0], self.drop_depth)}: batch x blocks"
            )
        if mask is not None and not self.mask_token:
            raise ConfigError("encoder.mask_token: found False, expected True, as masks are given")
        if mask is not None and mask.shape != patches:
            raise ConfigError(
                f"encoder: found a mask of shape {mask.shape}, expected {patches}: batch x patches"
            )
        for name in capture:
            check_choice("encoder: capture", name, self.captures)
        if "attention" in capture and not self.drop_depth:
            raise ConfigError("encoder.depth: found 0, expected at least 1 for attention")
        if "class_layers" in capture and not self.class_token:
            raise ConfigError("encoder.class_token: found False, expected True for class_layers")
        return grid


def build(
    *,
    size: str = "S",
    patch: int = 16,
    frames: int = 1,
    tubelet: int = 1,
    image_size: int | tuple[int, int] = 224,
    width: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    mlp_ratio: float = 4.0,
    ffn: str | None = None,
    layer_scale: float | None = None,
    qkv_bias: bool = True,
    pool: str = "cls",
    class_token: bool | None = None,
    registers: int = 0,
    posemb: str = "learned",
    mask_token: bool = False,
    attention: str = "einsum",
    scan: bool = False,
    remat: str = "none",
    dtype: Any = jnp.float32,
) -> ViT:
    """A vision transformer.

    Args:
      size: "Ti", "S", "B", "L", "H" or "g".
      patch: side of a square patch, in pixels.
      frames: of a clip, or slices of a volume; 1 is for images.
      tubelet: how many frames a patch spans; it divides `frames`.
      image_size: side, or (height, width), in pixels, of the grid that positions are learned on;
        images of other sizes get interpolated positions.
      width, depth, heads, ffn, layer_scale: each overrides that of `size`. `depth` 0 leaves the
        patch embedding with its positions; `ffn` is "mlp" or "swiglu"; `layer_scale` is an
        initial value, 0 for none.
      mlp_ratio: hidden width over width.
      qkv_bias: bias of the query, key and value projection.
      pool: "cls", "mean" (of the patch tokens) or "cls_mean" (both, concatenated).
      class_token: whether there is one; by default where `pool` needs it.
      registers: number of further learned tokens, without position and dropped from the output.
      posemb: "learned", the sum of a table over the plane and, for more than one frame, one over
        time; or fixed, "sincos2d" for images and "sincos3d" for more than one frame.
      mask_token: learn a token that stands for masked patches.
      attention: "einsum" or "fused" (`jax.nn.dot_product_attention`).
      scan: compile one block and scan it over the layers.
      remat: "none", "full" or "dots"; what each block recomputes in the backward pass.
      dtype: what it computes in; parameters are float32.

    >>> net = build(width=16, depth=2, heads=2, patch=4, image_size=8)
    >>> init = lambda key: net.init_with_output(key, jnp.zeros((3, 8, 8, 3)), train=False)
    >>> out, variables = jax.eval_shape(init, jax.random.key(0))
    >>> out["pooled"].shape, out["tokens"].shape
    ((3, 16), (3, 4, 16))
    """
    check_choice("size", size, SIZES)
    overrides: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "heads": heads,
        "ffn": ffn,
        "layer_scale": layer_scale,
    }
    chosen = SIZES[size]._replace(**{k: v for k, v in overrides.items() if v is not None})
    check_positive("patch", (patch,))
    check_positive("width", (chosen.width,))
    if not isinstance(chosen.depth, int) or chosen.depth < 0:
        raise ConfigError(f"depth: found {chosen.depth!r}, expected a whole number >= 0")
    check_positive("heads", (chosen.heads,))
    check_transformer(chosen.ffn, attention, remat)
    check_choice("pool", pool, POOLS)
    check_choice("posemb", posemb, POSEMBS)
    _check_clips(frames, tubelet, posemb)
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or any(side < patch or side % patch for side in sides):
        raise ConfigError(f"image_size: found {image_size}, expected multiples of patch = {patch}")
    if chosen.width % chosen.heads:
        raise ConfigError(f"heads: found {chosen.heads}, expected a divisor of {chosen.width}")
    if posemb == "sincos2d" and chosen.width % 4:
        raise ConfigError(f"width: found {chosen.width}, expected a multiple of 4 for sincos2d")
    if posemb == "sincos3d" and chosen.width < 6:
        raise ConfigError(f"width: found {chosen.width}, expected at least 6 for sincos3d")
    if class_token is None:
        class_token = pool != "mean"
    if pool != "mean" and not class_token:
        raise ConfigError(f"class_token: found False, expected True for pool {pool!r}")
    transformer = Transformer(
        chosen.depth,
        chosen.heads,
        ffn=chosen.ffn,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        layer_scale=chosen.layer_scale,
        attention=attention,
        scan=scan,
        remat=remat,
        dtype=dtype,
    )
    return ViT(
        transformer,
        chosen.width,
        patch,
        sides,
        pool,
        class_token,
        registers,
        posemb,
        mask_token,
        dtype,
        frames,
        tubelet,
    )


def _check_clips(frames: int, tubelet: int, posemb: str) -> None:
    check_positive("frames", (frames,))
    check_positive("tubelet", (tubelet,))
    if frames % tubelet:
        raise ConfigError(f"tubelet: found {tubelet}, expected a divisor of frames = {frames}")
    fixed = "sincos2d" if frames == 1 else "sincos3d"
    if posemb not in ("learned", fixed):
        raise ConfigError(
            f"posemb: found {posemb!r}, expected 'learned' or {fixed!r} for frames = {frames}"
        )
