"""Pictures for a report: what was hidden and how it was filled in, where an encoder looks."""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl.losses.reconstruction import EPSILON
from jaxssl.methods.composed import arguments
from jaxssl.methods.composed.arguments import INPUT, MaskArgument, Scene
from jaxssl.methods.composed.terms import Term

RECONSTRUCTION = ("clean", "seen", "predicted")
ATTENTION = ("view", "attention of the class token")
TEMPERATURE = 0.38  # between the mean of the colours that are likely and the likeliest one

# (term, scene of the step, clean views [B, V, ..., h, w, C], config) -> [B, 3, h, w, C] in [0, 1]
Painter = Callable[[Term, Scene, jax.Array, Any], jax.Array]


def painter(term: Term, config: Any) -> Painter | None:
    """What draws the prediction of a term: the first view of each sample, seen and predicted.

    None where the term predicts nothing that is seen in an image.
    """
    if term.teacher is None or term.teacher.who != INPUT:
        return None
    return PAINTERS.get(config.targets[term.teacher.output].name)


def reconstruction(term: Term, scene: Scene, clean: jax.Array, config: Any) -> jax.Array:
    """The first view of each sample, as the student saw it, and with hidden patches as predicted.

    A loss that standardises its target predicts patches without their mean and spread, which are
    lent by the true patch.

    Args:
      term: one that predicts pixels.
      scene: of the step.
      clean: [B, V, h, w, C] or [B, V, t, h, w, C], the group's views, normalised.
      config: of the run.

    Returns:
      [B, 3, h, w, C] in [0, 1].
    """
    from jaxssl.targets.pixels import unpatchify  # only where the config names that target

    assert term.teacher is not None
    prediction, target = (scene.stack(ref)[0][0] for ref in (term.student, term.teacher))
    if _standardizes(term):
        spread = jnp.sqrt(target.var(-1, ddof=1, keepdims=True) + EPSILON)
        prediction = prediction * spread + target.mean(-1, keepdims=True)
    masks = [arguments.resolve(v, scene, "", "") for v in term.arguments.values() if _hidden(v)]
    mask = masks[0][0] if masks else jnp.ones(target.shape[:2], bool)
    mask = mask.reshape(*mask.shape, *(1,) * (target.ndim - mask.ndim))
    patch, shape = config.targets[term.teacher.output].patch, clean.shape[2:]
    image = lambda tokens: unpatchify(tokens, patch, shape)
    seen = scene.blocks[term.student.groups[0]]["x"][:, 0]
    blank = jnp.where(mask, 0.0, target)
    seen = jnp.where((seen == clean[:, 0]).all(), image(blank), seen)
    filled = image(jnp.where(mask, prediction, target))
    return shown(jnp.stack([clean[:, 0], seen, filled], 1), config)


def colouring(term: Term, scene: Scene, clean: jax.Array, config: Any) -> jax.Array:
    """The first view of each sample, as the student saw it, and in the colours that it predicts.

    A colour is the mean of the bins under their probabilities, sharpened by TEMPERATURE as in Zhang
    et al., 2016, "Colorful image colorization", arXiv 1603.08511; luminance is the view's own.

    Args:
      term: one that predicts bins of colours.
      scene, clean, config: as of `reconstruction`.

    Returns:
      [B, 3, h, w, 3] in [0, 1].
    """
    from jaxssl.targets import colour_bins  # as above

    assert term.teacher is not None
    target = config.targets[term.teacher.output]
    bins = colour_bins.gamut(target.get("spacing", colour_bins.SPACING))
    logits = scene.stack(term.student)[0][0].astype(jnp.float32)
    ab = jax.nn.softmax(logits / TEMPERATURE) @ bins
    batch, _, height, width, _ = clean.shape
    ab = ab.reshape(batch, height // target.patch, width // target.patch, 2)
    ab = jax.image.resize(ab, (batch, height, width, 2), "linear")
    seen = scene.blocks[term.student.groups[0]]["x"][:, 0]
    views = shown(jnp.stack([clean[:, 0], seen], 1), config)
    luminance = colour_bins.lab(views[:, 0])[..., :1]
    coloured = colour_bins.rgb(jnp.concatenate([luminance, ab], -1))
    return jnp.concatenate([views, coloured[:, None]], 1)


# target -> what draws its prediction.
PAINTERS: dict[str, Painter] = {"pixels": reconstruction, "colour_bins": colouring}


def attention(weights: jax.Array, clean: jax.Array, config: Any) -> jax.Array:
    """The first view of each sample beside what the class token attends to, 1 where it is most.

    Args:
      weights: [B, V, H, T', T'], of the last block; the patches come last.
      clean: [B, V, h, w, C].
      config: of the run.

    Returns:
      [B, 2, h, w, C] in [0, 1].
    """
    views = shown(clean[:, :1], config)
    height, width, _ = views.shape[2:]
    rows, columns = (side // config.encoder.patch for side in (height, width))
    row = weights[:, 0].mean(1)[:, 0, -rows * columns :]
    row = row / row.max(-1, keepdims=True)
    maps = row.reshape(-1, rows, columns, 1)
    maps = jnp.repeat(jnp.repeat(maps, height // rows, 1), width // columns, 2)
    return jnp.concatenate([views, jnp.broadcast_to(maps[:, None], views.shape)], 1)


def captioned(captions: tuple[str, ...], images: jax.Array) -> OrderedDict[str, jax.Array]:
    """Caption -> [B, h, w, C], in this order, of images [B, K, h, w, C]."""
    return OrderedDict((caption, images[:, k]) for k, caption in enumerate(captions))


def _hidden(argument: Any) -> bool:
    return isinstance(argument, MaskArgument)


def _standardizes(term: Term) -> bool:
    parameter = inspect.signature(term.fn).parameters.get("normalize_target")
    if parameter is None:
        return False
    return bool(term.arguments.get(parameter.name, parameter.default))


def shown(images: jax.Array, config: Any) -> jax.Array:
    """[B, K, h, w, C] in [0, 1] of normalised images; of clips and volumes, the middle frame."""
    if images.ndim == 6:
        images = images[:, :, images.shape[2] // 2]
    mean, std = (jnp.asarray(config.data[field]) for field in ("mean", "std"))
    return jnp.clip(images * std + mean, 0, 1)
