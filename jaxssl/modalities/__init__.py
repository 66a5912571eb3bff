"""Modalities: what a kind of data is to the rest of the library, behind four doors.

A modality is a module of this package, or one elsewhere whose dotted name is the kind of the field
(`jaxssl.config.finder`). It defines

    views(group, *, field, data, where)   the random views of a group, made on the device: a
                                          function (keys [B, V], x [B, ...]) -> [B, V, ...]
    plain(x, *, data, size)               the one view without randomness, for evaluation
    raw(x)                                what the control without an encoder sees, float32 [B, D]
    show(x)                               pictures for the report, uint8 [N, H, W, C], on the host

`group` is the section of the config without `of`; `field` says what is known of the data
(`jaxssl.method.Field`), `data` is the config's section of that name, and messages begin with
`where`.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxssl.config import finder
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.method import Batch, Field, stream_of
from jaxssl.modalities.parameters import whole
from jaxssl.optim.param_groups import plain as as_dict

MakeViews = Callable[[jax.Array, Batch], dict[str, jax.Array]]
Fields = Mapping[str, Field]


def build(views: Any, fields: Fields, data: Any) -> MakeViews:
    """A function (key, batch) -> {group: [B, V, ...]} that makes the random views of a batch.

    `views` maps the name of a group to `count`, its number of views V; `of`, the field that they
    are made of (by default the only one that has views); `name`, a module whose `views` makes them
    (by default the modality of that field); and what that module reads.
    A view depends on nothing but the key, the sample's `index`, with the name of its stream where
    there are streams, and the view's number (`group_ids`), so neither its place in the batch, nor
    the device, nor the rest of the batch changes it.

    Args:
      views: the config's section.
      fields: of the batches.
      data: the config's section, of which modalities read e.g. `mean` and `std`.

    Raises:
      ConfigError: no group, a field that has no views, or whatever the modality refuses.

    >>> fields = {"index": Field("index"), "image": Field("image", (8, 8, 1), "uint8")}
    >>> data = {"mean": 0.5, "std": 0.25}
    >>> make = build({"all": {"count": 2, "size": 4, "flip": 0.5}}, fields, data)
    >>> batch = {"image": jnp.zeros((3, 8, 8, 1), jnp.uint8), "index": jnp.arange(3)}
    >>> {name: v.shape for name, v in make(jax.random.key(0), batch).items()}
    {'all': (3, 2, 4, 4, 1)}
    """
    ids, makers = group_ids(views), {}
    for name in ids:
        where, group = f"views.{name}", as_dict(views[name])
        of, by = group.pop("of", "") or main_field(fields), group.pop("name", "")
        field = fields[of] if by and of in fields else _viewed(of, fields, where)
        module = _modality(by, f"{where}.name") if by else _modality(field.kind)
        make = module.views(group, field=field, data=data, where=where)
        makers[name] = of, jnp.asarray(ids[name], jnp.uint32), make

    def make_views(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        streams = {stream_of(of) for of, *_ in makers.values()}
        keys = {stream: sample_keys(key, batch, stream) for stream in sorted(streams)}
        of_views = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))
        return {
            name: make(of_views(keys[stream_of(of)], numbers), batch[of])
            for name, (of, numbers, make) in makers.items()
        }

    return make_views


def sample_keys(key: jax.Array, batch: Batch, stream: str = "") -> jax.Array:
    """[B] keys by `index`, of the samples of a stream; its name is folded in."""
    if stream:
        key, index = fold_name(key, stream), batch[f"{stream}/index"]
    else:
        index = batch["index"]
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def group_streams(views: Any, fields: Fields) -> dict[str, str]:
    """Group name -> the stream that its views are made of, "" where there are none."""
    return {n: stream_of(views[n].get("of", "") or main_field(fields)) for n in group_ids(views)}


def group_ids(views: Any) -> dict[str, tuple[int, ...]]:
    """Group name -> the numbers of its views, counted over all groups in the order of their names.

    Raises:
      ConfigError: no group, or one without a count.

    >>> group_ids({"local": {"count": 3, "size": 98}, "global": {"count": 2, "size": 224}})
    {'global': (0, 1), 'local': (2, 3, 4)}
    """
    names = sorted(views.keys()) if views else ()
    if not names:
        raise ConfigError("views: found no group, expected at least one, with a count")
    ids, first = {}, 0
    for name in names:
        group, where = views[name], f"views.{name}"
        if not hasattr(group, "items"):
            raise ConfigError(f"{where}: found {group!r}, expected a dict with a count")
        if "count" not in group:
            raise ConfigError(f"{where}.count: missing, expected a whole number >= 1")
        last = first + whole(f"{where}.count", group["count"], 1)
        ids[name] = tuple(range(first, last))
        first = last
    return ids


def main_field(fields: Fields) -> str:
    """The only field that has views.

    Raises:
      ConfigError: there is none, or there are several.

    >>> main_field({"index": Field("index"), "image": Field("image", (8, 8, 1), "uint8")})
    'image'
    """
    viewed = [name for name, field in fields.items() if _is_modality(field.kind)]
    if len(viewed) != 1:
        found = ", ".join(viewed) or "none"
        raise ConfigError(f"views: found {found} to make views of, expected `of` to name one field")
    return viewed[0]


def evaluated(config: Any, fields: Fields) -> tuple[str, Field]:
    """The field that evaluations read, its own name and what it is.

    It is what the group "global" is made of, or else the first group. Evaluated batches are of no
    stream.

    Args:
      config: of the run.
      fields: of the batches, or of a source.

    >>> fields = {"index": Field("index"), "image": Field("image", (8, 8, 1), "uint8")}
    >>> evaluated({"views": {}}, fields)[0]
    'image'
    """
    views = config.get("views") or {}
    name = "global" if "global" in views else min(views, default="")
    of = (views[name].get("of", "") if name else "") or main_field(fields)
    own = of.rpartition("/")[2]
    return own, fields[of] if of in fields else fields[own]


def plain(config: Any, fields: Fields) -> Callable[[Batch], jax.Array]:
    """A function batch -> the view without randomness [B, ...] of the field that is evaluated.

    Args:
      config: of the run.
      fields: of the batches.
    """
    of, field = evaluated(config, fields)
    view = _modality(field.kind).plain
    return lambda batch: view(batch[of], data=config.data, size=config.evals.size)


def raw(config: Any, fields: Fields) -> Callable[[Batch], jax.Array]:
    """A function batch -> what the control without an encoder sees, float32 [B, D]."""
    of, field = evaluated(config, fields)
    see = _modality(field.kind).raw
    return lambda batch: see(batch[of])


def show(config: Any, fields: Fields) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A function rows -> a picture of each for the report, uint8 [N, H, W, C]."""
    of, field = evaluated(config, fields)
    draw = _modality(field.kind).show
    return lambda rows: draw(rows[of])


def view_shapes(make: MakeViews, batch: Batch) -> dict[str, tuple[int, ...]]:
    """Group -> the shape of one of its views, from a batch or from its shapes alone."""
    made = jax.eval_shape(make, jax.random.key(0), batch)
    return {name: tuple(views.shape[2:]) for name, views in made.items()}


def _viewed(of: str, fields: Fields, where: str) -> Field:
    viewed = [name for name, field in fields.items() if _is_modality(field.kind)]
    if of not in viewed:
        raise ConfigError(f"{where}.of: found {of!r}, expected a field{near(of, viewed)}")
    return fields[of]


@functools.cache
def _kinds() -> frozenset[str]:
    return frozenset(finder.names(sys.modules[__name__], "views"))


def _is_modality(kind: str) -> bool:
    return kind in _kinds() or "." in kind


def _modality(kind: str, where: str = "data.source") -> ModuleType:
    package = sys.modules[__name__]
    return finder.find(package, kind, defines="views", field=where, what="a modality")
