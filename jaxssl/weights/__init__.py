"""Encoders as state dicts of other libraries: out in timm's names, in from timm, DINO and MAE.

    encoder = encoders.build({"name": "vit", "size": "S"}, dtype=jnp.float32)
    variables = weights.load("dino_vits16.safetensors", encoder)
    weights.write("mine.safetensors", weights.to_state_dict(encoder, variables))

timm's model gives the same "pooled" as the encoder here if it is made so:

- ViT: `VisionTransformer(..., num_classes=0)`; with registers `no_embed_class=True`; for pool
  "mean" `global_pool="avg", fc_norm=False`; for a layer scale `init_values`; for SwiGLU, the layers
  of timm's "vit_giant_patch14_dinov2". The mask token is left out.
- ResNet: `resnet18` to `resnet101` with `num_classes=0`; the stem "cifar" has the same names.
- ConvNeXt: `ConvNeXt(..., num_classes=0)`; version 2 with `use_grn=True, ls_init_value=None`.

Every name of a file must have its place in the encoder, and the other way round. Left out are what
is no encoder's: classifiers ("fc.", "head.", ConvNeXt's "head.fc."), the heads of DINO, MAE's
decoder, counters of batches, and the mask token of an encoder without one.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import named_leaves
from jaxssl.encoders.convnext import ConvNeXt
from jaxssl.encoders.resnet import ResNet
from jaxssl.encoders.vit import ViT
from jaxssl.weights import convnext, resnet, vit
from jaxssl.weights.entry import Entry, Family
from jaxssl.weights.files import read, write

__all__ = ["artifact", "from_state_dict", "load", "read", "to_state_dict", "write"]

PyTree = Any
FAMILIES = {ViT: vit.FAMILY, ResNet: resnet.FAMILY, ConvNeXt: convnext.FAMILY}


def to_state_dict(encoder: nn.Module, variables: PyTree) -> dict[str, np.ndarray]:
    """An encoder's params and batch statistics under timm's names, float32, on the host.

    Args:
      encoder: a ViT of images, a ResNet or a ConvNeXt.
      variables: {"params": ..., "batch_stats": ... where it has any}.

    Raises:
      ConfigError: another encoder.
    """
    family = _family(encoder)
    leaves = named_leaves(variables)
    whole = {path: np.asarray(leaf, np.float32) for path, leaf in leaves.items()}
    found = {e.name: e.out(_of_layer(whole[e.path], e)) for e in family.entries(encoder)}
    return {n: np.ascontiguousarray(a) for n, a in family.finish(encoder, found).items()}


def from_state_dict(
    encoder: nn.Module, state: Mapping[str, Any], *, channels: int = 3, source: str = "weights"
) -> PyTree:
    """The variables of an encoder from a state dict in timm's, DINO's, DINOv2's or MAE's names.

    Learned positions of another grid are interpolated (`weights.vit.interpolate`).

    Args:
      encoder: a ViT of images, a ResNet or a ConvNeXt.
      state: arrays by name.
      channels: C of the images.
      source: of the arrays, for error messages.

    Returns:
      {"params": ..., "batch_stats": ... where it has any}, float32 on the host.

    Raises:
      ConfigError: one line that lists every missing, unknown and misshaped array by name.
    """
    family = _family(encoder)
    entries = family.entries(encoder)
    arrays = {name: np.asarray(value) for name, value in state.items()}
    try:
        arrays = family.prepare(encoder, arrays)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    shapes = named_leaves(_shapes(encoder, channels))
    faults = []
    expected = {e.name: jax.eval_shape(_moved(e), shapes[e.path]).shape for e in entries}
    if missing := [name for name in expected if name not in arrays]:
        faults.append(f"missing {', '.join(missing)}")
    left = sorted(arrays.keys() - expected.keys())
    if unknown := [name for name in left if not name.startswith(family.outside)]:
        faults.append(f"not of the encoder {', '.join(unknown)}")
    for name in expected.keys() & arrays.keys():
        if arrays[name].shape != expected[name]:
            faults.append(f"{name} is {arrays[name].shape}, expected {expected[name]}")
    if faults:
        raise ConfigError(f"{source}: {'; '.join(faults)}")
    layers: dict[str, list[np.ndarray]] = {}
    for e in entries:
        array = np.ascontiguousarray(e.back(arrays[e.name]), np.float32)
        layers.setdefault(e.path, []).append(array)
    stacked = {e.path for e in entries if e.layer is not None}
    return _nested({p: np.stack(a) if p in stacked else a[0] for p, a in layers.items()})


def load(
    path: str | pathlib.Path, encoder: nn.Module, *, part: str = "", channels: int = 3
) -> PyTree:
    """The variables of an encoder from a file: `read`, then `from_state_dict`.

    Args:
      path, part: as of `read`.
      encoder, channels: as of `from_state_dict`.

    Raises:
      ConfigError: as either of the two.
    """
    return from_state_dict(encoder, read(path, part), channels=channels, source=str(path))


def artifact(
    path: str | pathlib.Path, encoder: nn.Module, *, part: str = "", channels: int = 3
) -> dict[str, PyTree]:
    """A file as what an earlier stage leaves: for `Program(config, {"name": artifact})`.

    A frozen teacher starts from it (`source="artifact", artifact="name", follows=("encoder",)`),
    and so does a student (`stages.started`, `take=("params/encoder",)`).

    Args:
      path, encoder, part, channels: as of `load`.
    """
    found = jax.tree.map(jnp.asarray, load(path, encoder, part=part, channels=channels))
    stats = {"encoder": found["batch_stats"]} if "batch_stats" in found else {}
    params = {"encoder": found["params"]}
    extra = {"batch_stats": {"student": stats}}
    return {"params": params, "teachers": {}, "extra": extra, "optimizer": {}}


def _family(encoder: nn.Module) -> Family:
    if type(encoder) not in FAMILIES:
        known = ", ".join(kind.__name__ for kind in FAMILIES)
        raise ConfigError(f"encoder: found a {type(encoder).__name__}, expected one of {known}")
    return FAMILIES[type(encoder)]


def _shapes(encoder: nn.Module, channels: int) -> PyTree:
    # The variables of a convolutional network have the same shapes whatever the image's side.
    sides: Sequence[int] = encoder.image_size if isinstance(encoder, ViT) else (64, 64)
    image = jax.ShapeDtypeStruct((1, *sides, channels), np.float32)
    return jax.eval_shape(lambda key, x: encoder.init(key, x, train=False), _key(), image)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _of_layer(array: Any, entry: Entry) -> Any:
    return array if entry.layer is None else array[entry.layer]


def _moved(entry: Entry) -> Any:
    return lambda array: entry.out(_of_layer(array, entry))


def _nested(flat: Mapping[str, np.ndarray]) -> PyTree:
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        *folders, name = path.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[name] = array
    return tree
