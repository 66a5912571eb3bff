"""The random views that a run trains on, drawn again for an evaluation: pixels and features."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl import modalities
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.data import Source
from jaxssl.evals.features import Features, extract
from jaxssl.evals.subject import Subject

Draw = Callable[[Mapping[str, jax.Array], jax.Array], jax.Array]


def features(
    subject: Subject, source: Source, *, count: int, limit: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder makes of V views of each sample: [N, V, D], and the labels [N].

    Args:
      subject: its run says what views are: those of the group "global", or else of the first.
        Raw input has them at the size of its samples, so that it has as many numbers as plain ones.
      source: samples of the run's shape.
      count: V.
      limit: N; 0 for all samples.
      seed: of the views, which depend on it, the sample's index and the view's number alone.

    Raises:
      ConfigError: views that are parts of one.
      FloatingPointError: features are not finite.
    """
    draw, banks = _drawer(subject, seed), []
    name, stored = subject.field[0], tuple(subject.field[1].shape)

    @jax.jit
    def whole(images: jax.Array) -> jax.Array:
        if images.shape[1:] == stored:
            return images
        resized = jax.image.resize(images.astype(jnp.float32), (len(images), *stored), "linear")
        return jnp.round(jnp.clip(resized, 0, 255)).astype(jnp.uint8)

    for number in range(count):

        def change(batch: Mapping[str, jax.Array], number: int = number) -> dict[str, jax.Array]:
            seen = draw(batch, jnp.uint32(number))
            return {**batch, name: whole(seen) if subject.kind == "raw_input" else seen}

        banks.append(subject.features(source, limit=limit, change=change))
    return _stacked(banks, f"{subject.kind} features")


def pixels(
    subject: Subject, source: Source, *, count: int, limit: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The same views as numbers in [0, 1], [N, V, P], and the labels; as of `features`."""
    draw, config, mesh = _drawer(subject, seed), subject.program.config, subject.program.mesh

    def flat(number: int, batch: Mapping[str, jax.Array]) -> jax.Array:
        images = draw(batch, jnp.uint32(number))
        return images.reshape(len(images), -1).astype(jnp.float32) / 255

    with jax.set_mesh(mesh):
        banks = [
            extract(
                functools.partial(flat, number),
                source,
                batch_size=config.evals.batch_size,
                mesh=mesh,
                limit=limit,
            )
            for number in range(count)
        ]
    return _stacked(banks, "pixels")


def _stacked(banks: list[Features], what: str) -> tuple[np.ndarray, np.ndarray]:
    x = np.stack([bank.x for bank in banks], axis=1)
    if not np.isfinite(x).all():
        raise FloatingPointError(f"{what} are not all finite: the encoder overflows")
    return x, banks[0].y


def _drawer(subject: Subject, seed: int) -> Draw:
    """(batch, number) -> the view of that number of each sample, uint8 [B, h, w, C]."""
    config, fields = subject.program.config, subject.program.info.fields
    groups = modalities.group_ids(config.views)
    name = "global" if "global" in groups else next(iter(groups))
    group = config.views[name].to_dict()
    for field in ("turns", "tiles"):
        if group.get(field):
            raise ConfigError(
                f"views.{name}.{field}: found views that are parts of one, expected each drawn "
                "by itself"
            )
    # In units of [0, 1]: the encoder normalises them as it does any sample.
    make = modalities.build({name: {**group, "count": 1}}, fields, {"mean": 0.0, "std": 1.0})
    root = fold_name(jax.random.key(seed), "views of evaluations")

    @jax.jit
    def draw(batch: Mapping[str, jax.Array], number: jax.Array) -> jax.Array:
        view = make(jax.random.fold_in(root, number), batch)[name][:, 0]
        return jnp.round(255 * jnp.clip(view, 0, 1)).astype(jnp.uint8)

    return draw
