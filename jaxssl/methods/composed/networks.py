"""The networks of a family: an encoder and heads, applied to groups of views.

A *block* is the part of a batch that passes a network together: one group of views, [B, V, ...].
Blocks are merged as (b v), which keeps a batch-sharded array where it is.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.devices.chunking import chunked
from jaxssl.devices.sharding import batch_sharded

PyTree = Any
Outputs = dict[str, Any]
# What networks compute in, by `train.precision`.
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Heads whose place is a convention of the field: head -> (what it reads, what it is called).
PLACES = {"projector": ("pooled", "projection"), "predictor": ("projection", "prediction")}


class Head(NamedTuple):
    """A network on an output of another: `module` maps `reads` to `output`.

    With `shares` it is the network of that name, applied once more.
    """

    module: nn.Module
    reads: str
    output: str
    shares: str = ""


def accepts(module: nn.Module) -> frozenset[str]:
    """The fields of a block that a network takes beside `x`: its keyword arguments."""
    parameters = inspect.signature(type(module).__call__).parameters.values()
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return frozenset(named - {"train", "capture"})


class Networks(NamedTuple):
    """An encoder and its heads, and how they are applied.

    Attributes:
      encoder: the encoder's module.
      heads: network name -> Head, each after the one whose output it reads.
      statistics: which rows share batch statistics: "all" views that pass a network at the same
        size together, each "group" of views, or each "view".
      microbatches: k of `chunked`.
    """

    encoder: nn.Module
    heads: Mapping[str, Head]
    statistics: str = "all"
    microbatches: int = 1

    def init(self, key: jax.Array, images: jax.Array, views: int = 1) -> tuple[PyTree, PyTree]:
        """(params, batch statistics) by network name.

        Args:
          key: each network folds its name in.
          images: [B, ..., C].
          views: V, for heads that join the views of a sample.
        """
        params, stats = {}, {}

        def start(name: str, module: nn.Module, x: Any, **fields: Any) -> Any:
            out, variables = module.init_with_output(fold_name(key, name), x, train=False, **fields)
            if variables.get("params"):
                params[name] = variables["params"]
            if "batch_stats" in variables:
                stats[name] = variables["batch_stats"]
            return out

        reads = [head.reads for head in self.heads.values()]
        outputs = dict(start("encoder", self.encoder, images, **self._capture(reads)))
        for name, head in self.heads.items():
            if head.reads not in outputs:
                hint = near(head.reads, self.known())
                raise ConfigError(f"student.{name}.reads: no output {head.reads!r}{hint}")
            x = outputs[head.reads]
            if joins_views(head.module):
                x = jnp.broadcast_to(x[:, None], (len(x), views, *x.shape[1:]))
            if head.shares:
                variables = variables_of(head.shares, params, stats)
                outputs[head.output] = head.module.apply(variables, x, train=False)
            else:
                outputs[head.output] = start(name, head.module, x)
        return params, stats

    def known(self) -> tuple[str, ...]:
        """The outputs that there are: the encoder's, some on request, and those of heads."""
        on_request = getattr(self.encoder, "captures", ())
        return ("pooled", "tokens", *on_request, *(head.output for head in self.heads.values()))

    def _capture(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The argument that asks the encoder for those of `names` that it gives on request."""
        known = getattr(self.encoder, "captures", ())
        wanted = tuple(name for name in known if name in set(names))
        return {"capture": wanted} if wanted else {}

    def needed(self, names: Sequence[str]) -> list[str]:
        """The heads, in order, that the outputs `names` rest on."""
        wanted, chosen = set(names), []
        for name, head in reversed(list(self.heads.items())):
            if head.output in wanted:
                wanted.add(head.reads)
                chosen.append(name)
        return chosen[::-1]

    def outputs(
        self,
        params: PyTree,
        stats: PyTree,
        views: Mapping[str, Mapping[str, jax.Array]],
        names: Sequence[str],
        train: bool,
    ) -> tuple[dict[str, Outputs], PyTree]:
        """What the networks make of groups of views, in float32.

        Args:
          params: by network name.
          stats: batch statistics by network name; networks without any are absent.
          views: group -> {"x": [B, V, h, w, c], and what else the encoder takes: "keep", ...}.
          names: outputs wanted, e.g. ("projection",).
          train: batch statistics from the batch, or the running ones.

        Returns:
          {output: {group: [B, V, ...]}} and the next statistics.
        """
        groups = list(views)
        heads = self.needed(names)
        read_from_encoder = set(names) | {self.heads[h].reads for h in heads}
        inputs = [_fields(self.encoder, views[g]["x"], views[g]) for g in groups]
        for block in inputs:
            if "tokens" in block:  # told which patches it sees, it needs no mask
                block.pop("mask", None)
        blocks, stats = self._apply(
            "encoder", self.encoder, params, stats, inputs, train, self._capture(read_from_encoder)
        )
        found: dict[str, list[Any]] = {
            name: [block[name] for block in blocks] for name in read_from_encoder & set(blocks[0])
        }
        for name in heads:
            head = self.heads[name]
            inputs = [_fields(head.module, x, views[g]) for g, x in zip(groups, found[head.reads])]
            owner = head.shares or name
            found[head.output], stats = self._apply(
                owner, head.module, params, stats, inputs, train
            )
        full = jax.tree.map(lambda x: x.astype(jnp.float32), {n: found[n] for n in names})
        return {n: dict(zip(groups, full[n])) for n in names}, stats

    def apply_head(self, name: str, params: PyTree, stats: PyTree, x: jax.Array) -> jax.Array:
        """One head on arrays [..., D] from elsewhere, with its running statistics."""
        variables = variables_of(self.heads[name].shares or name, params, stats)
        out: Any = self.heads[name].module.apply(variables, x, train=False)
        return jnp.asarray(out, jnp.float32)

    def _apply(
        self,
        name: str,
        module: nn.Module,
        params: PyTree,
        stats: PyTree,
        blocks: Sequence[Mapping[str, Any]],
        train: bool,
        fixed: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[list[Any], PyTree]:
        """One network on every block; blocks that share statistics pass it as one.

        Blocks of streams have other batches: where the smallest divides them, samples m b ...
        m b + m - 1 of a larger one pass as m views of a sample; otherwise it passes apart.
        """
        sizes = [jax.tree.leaves(block["x"])[0].shape[:2] for block in blocks]
        least = min(batch for batch, _ in sizes)
        folds = [batch // least if batch % least == 0 else 0 for batch, _ in sizes]
        counts = [views for _, views in sizes]
        mode = self.statistics if train and name in stats else "all"
        if joins_views(module):
            parts, mode = list(blocks), "group"
        elif mode == "view":
            parts = [
                jax.tree.map(lambda a, i=i: a[:, i : i + 1], block)
                for block, count in zip(blocks, counts)
                for i in range(count)
            ]
        elif mode == "all" and all(folds) and _alike(blocks):
            folded = [_fold(block, m) for block, m in zip(blocks, folds)]
            parts = [jax.tree.map(lambda *a: jnp.concatenate(a, 1), *folded)]
        elif mode == "all" and set(folds) == {1} and getattr(module, "joins_groups", False):
            return self._pass_groups(name, module, params, stats, blocks, train, fixed), stats
        else:
            parts = list(blocks)
        done = []
        for part in parts:
            out, stats = self._pass(name, module, params, stats, part, train, fixed)
            done.append(out)
        if mode == "view":
            return _join(done, counts), stats
        if len(done) == len(blocks):
            return done, stats
        groups = _cut(done[0], [views * m for views, m in zip(counts, folds)])
        return [_unfold(group, m) for group, m in zip(groups, folds)], stats

    def _pass(
        self,
        name: str,
        module: nn.Module,
        params: PyTree,
        stats: PyTree,
        block: PyTree,
        train: bool,
        fixed: Mapping[str, Any],
    ) -> tuple[Any, PyTree]:
        views = jax.tree.leaves(block["x"])[0].shape[1]
        learns = train and name in stats
        variables = variables_of(name, params, stats)
        joins = joins_views(module)

        def apply(block: PyTree) -> Any:
            if joins:  # [B, V, ...] as it is, and the fields of the first view
                fields = {k: a if k == "x" else a[:, 0] for k, a in block.items()}
            else:
                merge = lambda a: rearrange(a, "b v ... -> (b v) ...")
                fields = jax.tree.map(merge, dict(block))
            x = fields.pop("x")
            fields |= fixed
            if learns:
                out, new = module.apply(variables, x, train=True, mutable=["batch_stats"], **fields)
            else:
                out, new = module.apply(variables, x, train=train, **fields), {}
            count = 1 if joins else views
            out = jax.tree.map(lambda a: rearrange(a, "(b v) ... -> b v ...", v=count), out)
            return (out, new) if learns else out

        if not learns:
            return batch_sharded(chunked(apply, self.microbatches)(block)), stats
        out, new = apply(block)
        return batch_sharded(out), {**stats, name: new["batch_stats"]}

    def _pass_groups(
        self,
        name: str,
        module: nn.Module,
        params: PyTree,
        stats: PyTree,
        blocks: Sequence[Mapping[str, Any]],
        train: bool,
        fixed: Mapping[str, Any],
    ) -> list[Any]:
        """Blocks of several shapes through a network that takes them side by side."""
        variables = variables_of(name, params, stats)
        given = sorted(set().union(*blocks))

        def apply(blocks: Sequence[PyTree]) -> Any:
            fields: dict[str, Any] = {f: tuple(block.get(f) for block in blocks) for f in given}
            return module.apply(variables, fields.pop("x"), train=train, **fields, **fixed)

        return list(batch_sharded(chunked(apply, self.microbatches)(list(blocks))))


def joins_views(module: nn.Module) -> bool:
    """Whether a head sees all views of a sample at once, [B, V, D], and gives one output."""
    return bool(getattr(module, "joins_views", False))


def variables_of(name: str, params: PyTree, stats: PyTree) -> dict[str, PyTree]:
    """What a network is applied with; one without parameters has none."""
    found = {"params": params[name]} if name in params else {}
    return found | ({"batch_stats": stats[name]} if name in stats else {})


def _fields(module: nn.Module, x: Any, block: Mapping[str, Any]) -> dict[str, Any]:
    """What a network gets of a block: `x`, and the fields that it takes."""
    return {"x": x} | {name: block[name] for name in sorted(accepts(module)) if name in block}


def _alike(blocks: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one view of each block has one shape."""
    shapes = [jax.tree.map(lambda a: a.shape[2:], dict(block)) for block in blocks]
    return all(found == shapes[0] for found in shapes)


def _fold(block: Any, m: int) -> Any:
    """[m B, V, ...] as [B, m V, ...]: neighbours in a batch, which lie on one device, as views."""
    fold = lambda a: rearrange(a, "(b m) v ... -> b (m v) ...", m=m)
    return block if m == 1 else jax.tree.map(fold, block)


def _unfold(block: Any, m: int) -> Any:
    unfold = lambda a: rearrange(a, "b (m v) ... -> (b m) v ...", m=m)
    return block if m == 1 else jax.tree.map(unfold, block)


def _join(parts: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """Single views, one after another, as groups of `counts` views."""
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return [
        jax.tree.map(lambda *a: jnp.concatenate(a, 1), *parts[end - n : end])
        for end, n in zip(ends, counts)
    ]


def _cut(joined: Any, counts: Sequence[int]) -> list[Any]:
    """Views, one after another, as groups of `counts` views."""
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return [
        jax.tree.map(lambda a, e=end, n=count: a[:, e - n : e], joined)
        for end, count in zip(ends, counts)
    ]


def order_heads(heads: Mapping[str, Head]) -> dict[str, Head]:
    """Heads by name, each after the one that it reads; what nobody makes comes from the encoder.

    Raises:
      ConfigError: heads that read each other in a circle, or two with one output name.
    """
    outputs = [head.output for head in heads.values()]
    for output in outputs:
        if outputs.count(output) > 1:
            raise ConfigError(f"student: two heads give {output!r}; set another `output`")
    ordered: dict[str, Head] = {}
    waiting = dict(heads)
    while waiting:
        made = {head.output for head in ordered.values()}
        ready = [n for n, h in waiting.items() if h.reads in made or h.reads not in outputs]
        if not ready:
            raise ConfigError(f"student: the heads {sorted(waiting)} read each other in a circle")
        for name in ready:
            ordered[name] = waiting.pop(name)
    return ordered


def head_place(name: str, config: Mapping[str, Any], field: str = "") -> tuple[str, str]:
    """(reads, output) of a head: its fields, or the convention for its name.

    Raises:
      ConfigError: a head of another name without both fields.
    """
    reads, output = PLACES.get(name, ("", ""))
    reads, output = config.get("reads", reads), config.get("output", output)
    where = field or f"student.{name}"
    for part, text in (("reads", reads), ("output", output)):
        if not isinstance(text, str):
            raise ConfigError(f"{where}.{part}: found {text!r}, expected a name")
    if not reads or not output:
        raise ConfigError(
            f"{where}: needs `reads` and `output` (only projector and predictor have "
            f"defaults{near(name, PLACES)})"
        )
    return reads, output
