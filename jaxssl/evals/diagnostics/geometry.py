"""The shape of held-out features: spectra, spread, and what the run's own augmentations move.

Off unless a config asks for it, and no number of it is a success by itself: features that are more
even, or wider, are not always better.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl import modalities
from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.diagnostics import rank as diagnostics
from jaxssl.evals.subject import Subject
from jaxssl.method import Field

OF_KIND = "image"
PROTOCOL: dict[str, Any] = {
    "rows": 4096,
    "samples": 1000,
    "views": 10,
    "group": "",
    "first": 1,
    "last": 50,
    "slices": 256,
}
BETTER = {"*": None}


def examine(
    subject: Subject,
    *,
    rows: int = 4096,
    samples: int = 1000,
    views: int = 10,
    group: str = "",
    first: int = 1,
    last: int = 50,
    slices: int = 256,
) -> dict[str, float]:
    """What `rank` says of the held-out features, each number as defined there.

    "alignment" and "lidar" are of several views of held-out samples, drawn as in training; all
    else is of the plain features. Views are rounded to 8 bits, as images are stored, and enter the
    encoder by its evaluation view, at its size; of raw input their pixels are taken.

    Args:
      subject: its test bank is read, and its encoder asked for views.
      rows: of the test bank at most, evenly spaced.
      samples: how many samples have views drawn, at least 2.
      views: of each, at least 2.
      group: of `config.views`, whose augmentations are drawn; "" is "global", or else the first.
        Of a group by `turns` or `tiles` it is the view that is turned or cut.
      first, last: ranks that "alpha_req" is fitted to.
      slices: directions of "sigreg".

    Returns:
      {"rankme", "effective_rank", "effective_dimension", "nesum", "alpha_req", "std",
      "uniformity", "sigreg", "alignment", "lidar"}; and "intra_variance", "inter_variance" and
      "nc1", where two classes have two samples or more; without "alpha_req", where fewer than two
      of its ranks are there.

    Raises:
      ConfigError: no such group, or too few samples, views or ranks.
      FloatingPointError: features are not finite.
    """
    for name, value, least in (
        ("rows", rows, 2),
        ("samples", samples, 2),
        ("views", views, 2),
        ("last", last, first + 1),
    ):
        if value < least:
            raise ConfigError(f"evals.geometry.{name}: found {value}, expected at least {least}")
    draw = random_view(subject.program.config, subject.program.info.fields, group)
    test = subject.test
    keep = slice(None, None, -(-len(test.x) // rows))
    x, y = test.x[keep], test.y[keep]
    several = np.stack(
        [
            subject.features(
                subject.test_source,
                limit=samples,
                change=functools.partial(draw, number),
            ).x
            for number in np.arange(views, dtype=np.uint32)
        ],
        axis=1,
    )
    if not (np.isfinite(x).all() and np.isfinite(several).all()):
        raise FloatingPointError(
            f"the {subject.kind} features are not all finite: the encoder overflows"
        )
    found = {
        "rankme": diagnostics.rankme(x),
        "effective_rank": diagnostics.effective_rank(x),
        "effective_dimension": float(diagnostics.effective_dimension(x)),
        "nesum": diagnostics.nesum(x),
        "alpha_req": diagnostics.alpha_req(x, first=first, last=last),
        "std": diagnostics.std(x),
        "uniformity": diagnostics.uniformity(x),
        "sigreg": diagnostics.sigreg(x, slices=slices),
        "alignment": diagnostics.alignment(several),
        "lidar": diagnostics.lidar(several),
    }
    _, counts = np.unique(y[y >= 0], return_counts=True)
    if (counts > 1).sum() > 1:
        found |= diagnostics.class_variances(x[y >= 0], y[y >= 0])
    return {name: value for name, value in found.items() if np.isfinite(value)}


def random_view(
    config: Any, fields: Mapping[str, Field], group: str = ""
) -> Callable[[Any, Mapping[str, jax.Array]], dict[str, jax.Array]]:
    """A jitted (number, batch) -> the batch with one random view of each image in its place.

    The view depends on the number and on the sample's index, on nothing else.

    Args:
      config: of the run; its `views` are drawn.
      fields: of its batches.
      group: as of `examine`.

    Raises:
      ConfigError: the run has no views, or no group of that name.
    """
    groups = list(config.views)
    if not groups:
        raise ConfigError("evals.geometry: found a run without views, expected a group to draw of")
    chosen = group or ("global" if "global" in groups else min(groups))
    if chosen not in groups:
        raise ConfigError(f"evals.geometry.group: no group {chosen!r}{near(chosen, groups)}")
    transforms = {k: v for k, v in config.views[chosen].items() if k not in ("turns", "tiles")}
    name = modalities.evaluated(config, fields)[0]
    # Pixels in [0, 1]: the encoder's evaluation view normalises them itself.
    make = modalities.build({chosen: {**transforms, "count": 1}}, fields, {"mean": 0.0, "std": 1.0})

    @jax.jit
    def draw(number: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        view = make(jax.random.fold_in(jax.random.key(0), number), batch)[chosen][:, 0]
        pixels = jnp.round(255 * jnp.clip(view, 0, 1)).astype(jnp.uint8)
        return {**batch, name: pixels}

    return draw
