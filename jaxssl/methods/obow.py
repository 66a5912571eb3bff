"""OBoW: the student sees crops, and predicts which visual words the teacher finds in the image.

Gidaris et al., 2021, "OBoW: online bag-of-visual-words generation for self-supervised learning",
arXiv 2012.11552. The one teacher sees the one view that its field `views` names (default
"original"), the student every other group. At each of `levels`, stages of the encoder, the
teacher's map without its border gives the image's bag t of words of a vocabulary, which is a queue
of such features:

  t = bag_of_words(d, scale=mu),  d = word_distances(map, V),  mu the running mean of min_k d
  L = sum_groups mean_levels bag_divergence(kappa y G(V)^T, t),  y the student's pooled output

The head `student.generator`, one for each level, makes the classifier's weights G(V) out of the
words: L2 norm, the configured head, L2 norm. Both sides of a step use the vocabulary that it began
with; then every image adds one vector (`sampled_words`). The gradient reaches the generator's
weights and the student, but no word.

Fields of `config.method_options`:
  levels: stages of the encoder's feature maps, e.g. (-2, -1).
  vocabulary_size: K, a multiple of the global batch.
  vocabulary: "queue", or "frozen" at its first noise: the control.
  border: places left out on every side of a map, where padding shows.
  window: side of the average that makes a word.
  pool: "max" or "mean", of the codes over places.
  sharpness: of the codes, the paper's 1 / delta; None takes the nearest word alone.
  kappa: factor of the logits.
  momentum: of mu.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, losses, modalities, teachers
from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.devices.chunking import chunked
from jaxssl.devices.sharding import batch_sharded
from jaxssl.losses.bags import POOLS
from jaxssl.losses.vectors import unit
from jaxssl.memories import Memory, MemoryInput, queue
from jaxssl.method import Aux, Batch, Context, Info, Method, PyTree, Teacher
from jaxssl.methods import toolkit
from jaxssl.methods.composed import outputs as encode
from jaxssl.methods.composed.networks import DTYPES, Networks
from jaxssl.state import example_batch

OPTIONS: Mapping[str, Any] = {
    "levels": (-1,),
    "vocabulary_size": 8192,
    "vocabulary": "queue",
    "border": 1,
    "window": 3,
    "pool": "max",
    "sharpness": 15.0,
    "kappa": 8.0,
    "momentum": 0.99,
}
VOCABULARIES = ("queue", "frozen")
FIRST_DISTANCE = 0.5


def build(config: Any, info: Info) -> Method:
    """The `Method` of an OBoW config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    options = _options(config)
    toolkit.unread(config, "losses")
    make = modalities.build(config.views, info.fields, config.data)
    teacher_name, whole, teacher = _teacher(config, info)
    crops = tuple(group for group in modalities.group_ids(config.views) if group != whole)
    if not crops:
        raise ConfigError(f"views: found {whole!r} alone, expected a group for the student")
    dtype = DTYPES[config.train.precision]
    k = config.train.microbatches
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    networks = Networks(encoder, {}, "group", k)
    generator = _generator(config, dtype)
    words = _vocabulary(options, info)
    levels = [f"level{i}" for i in range(len(options["levels"]))]

    def maps_of(params: PyTree, stats: PyTree, x: jax.Array) -> tuple[list[jax.Array], PyTree]:
        """The teacher's maps at each level, in float32, without border; the next statistics."""
        variables = {"params": params["encoder"]}
        apply: Any = functools.partial(encoder.apply, variables, train=True, capture=("stages",))
        if "encoder" in stats:
            variables["batch_stats"] = stats["encoder"]
            out, new = apply(x, mutable=["batch_stats"])
            found, stats = out["stages"], {**stats, "encoder": new["batch_stats"]}
        else:
            found = chunked(lambda x: apply(x)["stages"], k)(x)
        chosen = [_inside(found, level, options) for level in options["levels"]]
        return batch_sharded(jax.lax.stop_gradient(chosen)), stats

    def shapes_of(x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """The pooled output, and the maps at each level, of fresh params."""
        out: Any
        out, _ = encoder.init_with_output(jax.random.key(0), x, train=False, capture=("stages",))
        maps = [_inside(out["stages"], level, options) for level in options["levels"]]
        return out["pooled"], maps

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        images = make(fold_name(key, "views"), batch)
        params, stats = networks.init(key, images[crops[0]][:, 0])
        copies = {"student": stats, teacher_name: jax.tree.map(jnp.array, stats)}
        vocabulary, distance = {}, {}
        pooled, maps = jax.eval_shape(shapes_of, images[whole][:, 0])
        for level, shape in zip(levels, maps):
            start = words.init(fold_name(key, level), (1, info.global_batch, shape.shape[-1]))
            vocabulary[level] = {**start, "rows": nn.relu(start["rows"])}
            distance[level] = jnp.full((), FIRST_DISTANCE, jnp.float32)
            name = f"generator_{level}"
            out, variables = generator.init_with_output(
                fold_name(key, name), vocabulary[level]["rows"][0][:2]
            )
            if out.shape[-1] != pooled.shape[-1]:
                raise ConfigError(
                    f"student.generator: found {out.shape[-1]} outputs, expected "
                    f"{pooled.shape[-1]}, those of the encoder"
                )
            params[name] = variables["params"]
            if "batch_stats" in variables:
                copies["student"][name] = variables["batch_stats"]
        return params, {"batch_stats": copies, "vocabulary": vocabulary, "distance": distance}

    def generate(params: PyTree, stats: PyTree, level: str, rows: jax.Array) -> Any:
        """Words [K, C] -> the classifier's weights [K, D], and the next statistics."""
        name = f"generator_{level}"
        variables = {"params": params[name]}
        if name not in stats:
            return generator.apply(variables, rows), stats
        variables["batch_stats"] = stats[name]
        out, new = generator.apply(variables, rows, mutable=["batch_stats"])
        return out, {**stats, name: new["batch_stats"]}

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, seen, extra, batch, key, step = context
        images = make(fold_name(key, "views"), batch)
        statistics = dict(extra["batch_stats"])
        maps, statistics[teacher_name] = maps_of(
            seen[teacher_name], statistics[teacher_name], images[whole][:, 0]
        )
        stats = statistics["student"]
        inputs = {group: {"x": images[group]} for group in crops}
        outputs, stats = networks.outputs(params, stats, inputs, ("pooled",), train=True)
        per_group = {group: jnp.zeros(()) for group in crops}
        metrics, vocabulary, distance = {}, {}, {}
        for level, features in zip(levels, maps):
            state = extra["vocabulary"][level]
            rows = words.read(state, _seen(features[:, 0, 0], batch, key, step))
            rows = jax.lax.stop_gradient(rows)
            bags, distance[level], nearest = _bags(
                features, rows, extra["distance"][level], options
            )
            weights, stats = generate(params, stats, level, rows)
            for group in crops:
                logits = options["kappa"] * jnp.einsum(
                    "bvd,kd->bvk",
                    outputs["pooled"][group],
                    weights,
                    precision=jax.lax.Precision.HIGHEST,
                )
                per_group[group] += losses.bag_divergence(logits, bags) / len(levels)
            keys = _per_sample(fold_name(key, level), batch["index"])
            new = losses.sampled_words(features, keys, window=options["window"])
            vocabulary[level] = words.update(state, _seen(new, batch, key, step))
            metrics[f"{level}/perplexity"] = losses.bag_perplexity(bags)
            of_image = jax.vmap(losses.bag_perplexity)(bags[:, None])
            metrics[f"{level}/image_perplexity"] = of_image.mean()
            metrics[f"{level}/nearest"] = nearest
        statistics["student"] = stats
        after = {"batch_stats": statistics, "vocabulary": vocabulary, "distance": distance}
        value = sum(per_group.values(), jnp.zeros(()))
        return value, Aux(jax.lax.stop_gradient(after), {**metrics, **per_group})

    _, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
    # The generator's batch norm sees the words, all of them in every part.
    toolkit.microbatches(config, [n for n in extra["batch_stats"]["student"] if n == "encoder"])
    return Method(
        init,
        {"main": loss},
        encode.encoders_of(config, info, networks),
        {teacher_name: teacher},
    )


class Generator(nn.Module):
    """G(v) = u(h(u(v))) with u the L2 norm and h a head: words [K, C] -> weights [K, D]."""

    head: nn.Module

    @nn.compact
    def __call__(self, words: jax.Array) -> jax.Array:
        """[K, C] -> [K, D]."""
        out: Any = self.head(unit(words), train=True)
        return unit(out.astype(jnp.float32))


def _bags(
    features: jax.Array, rows: jax.Array, distance: jax.Array, options: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The bags [B, K] of maps [B, h, w, C]; the next mu; this batch's mean distance."""
    places = features.reshape(len(features), -1, features.shape[-1])
    d = losses.word_distances(places, rows)
    nearest = d.min(-1).mean()
    distance = options["momentum"] * distance + (1 - options["momentum"]) * nearest
    fields = {name: options[name] for name in ("sharpness", "pool")}
    return losses.bag_of_words(d, scale=distance, **fields), distance, nearest


def _inside(stages: Any, level: int, options: Mapping[str, Any]) -> jax.Array:
    """The map [B, h, w, C] of a stage without its border, in float32."""
    if not -len(stages) <= level < len(stages):
        raise ConfigError(
            f"method_options.levels: found {level}, but the encoder has {len(stages)} stages"
        )
    x, border = stages[level], options["border"]
    least = min(x.shape[1:3]) - 2 * border
    if options["window"] > least:
        raise ConfigError(
            f"method_options.window: found {options['window']}, but the map of stage {level}, "
            f"{x.shape[1]}x{x.shape[2]}, leaves {least} places within its border of {border}"
        )
    return x[:, border : x.shape[1] - border, border : x.shape[2] - border].astype(jnp.float32)


def _seen(rows: jax.Array, batch: Batch, key: jax.Array, step: jax.Array) -> MemoryInput:
    return MemoryInput(rows[None], batch, key, step)


def _per_sample(key: jax.Array, index: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def _options(config: Any) -> dict[str, Any]:
    options = toolkit.options(config, OPTIONS)
    where = "method_options."
    check_choice(where + "vocabulary", options["vocabulary"], VOCABULARIES)
    check_choice(where + "pool", options["pool"], POOLS)
    for name, least in (("vocabulary_size", 1), ("border", 0), ("window", 1)):
        if not isinstance(options[name], int) or options[name] < least:
            found = options[name]
            raise ConfigError(f"{where}{name}: found {found!r}, expected {least} or more")
    for name, most in (("kappa", math.inf), ("sharpness", math.inf), ("momentum", 1)):
        found = options[name]
        if name == "sharpness" and found is None:
            continue
        if not isinstance(found, int | float) or not 0 <= found <= most:
            raise ConfigError(f"{where}{name}: found {found!r}, expected 0 to {most}")
    if not options["levels"]:
        raise ConfigError(f"{where}levels: found none, expected stages such as (-1,)")
    return options


def _vocabulary(options: Mapping[str, Any], info: Info) -> Memory:
    """The queue of words, or one that keeps its first state."""
    try:
        memory = queue.build(views=1, info=info, size=options["vocabulary_size"], normalize=False)
    except ConfigError as error:
        raise ConfigError(f"method_options.vocabulary_{error}") from None
    if options["vocabulary"] == "frozen":
        memory = memory._replace(update=lambda state, seen: state)
    return memory


def _generator(config: Any, dtype: Any) -> Generator:
    for name in config.student:
        if name != "generator":
            raise ConfigError(f"student.{name}: no such head{near(name, ('generator',))}")
    if "generator" not in config.student:
        raise ConfigError("student.generator: missing; expected a head as wide as the encoder")
    fields = config.student.generator.to_dict()
    return Generator(heads.build(fields, dtype=dtype, field="student.generator"))


def _teacher(config: Any, info: Info) -> tuple[str, str, Teacher]:
    """Its name, the group that it sees, and itself."""
    names = tuple(config.teachers)
    if len(names) != 1:
        raise ConfigError(f"teachers: found {len(names)}, expected one")
    field = f"teachers.{names[0]}"
    entry = {"follows": ("encoder",), **config.teachers[names[0]].to_dict()}
    if tuple(entry["follows"]) != ("encoder",):
        raise ConfigError(f"{field}.follows: found {entry['follows']!r}, expected ('encoder',)")
    seen = tuple(entry.pop("views", ("original",)))
    ids = modalities.group_ids(config.views)
    if len(seen) != 1 or seen[0] not in ids:
        hint = near(seen[0], ids) if len(seen) == 1 else ""
        raise ConfigError(f"{field}.views: found {seen!r}, expected one group{hint}")
    if len(ids[seen[0]]) != 1:
        raise ConfigError(f"views.{seen[0]}.count: found {len(ids[seen[0]])}, expected 1")
    return names[0], seen[0], teachers.make(entry, info.steps, field, info=info)
