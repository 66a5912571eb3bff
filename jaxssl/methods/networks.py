"""The networks of a family: an encoder and heads, applied to groups of views.

A *block* is the part of a batch that passes a network together: one group of views, [B, V, ...].
Blocks are merged as (b v), which keeps a batch-sharded array where it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxssl.chunking import chunked
from jaxssl.errors import ConfigError, near
from jaxssl.naming import fold_name
from jaxssl.sharding import batch_sharded

PyTree = Any
Outputs = dict[str, Any]
# What networks compute in, by `train.precision`.
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Heads whose place is a convention of the field: head -> (what it reads, what it is called).
PLACES = {"projector": ("pooled", "projection"), "predictor": ("projection", "prediction")}


class Head(NamedTuple):
    """A network on an output of another: `module` maps `reads` to `output`."""

    module: nn.Module
    reads: str
    output: str


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

    def init(self, key: jax.Array, images: jax.Array) -> tuple[PyTree, PyTree]:
        """(params, batch statistics) by network name; images [B, h, w, c]."""
        params, stats = {}, {}

        def start(name: str, module: nn.Module, x: jax.Array) -> Any:
            variables = module.init(fold_name(key, name), x, train=False)
            params[name] = variables["params"]
            if "batch_stats" in variables:
                stats[name] = variables["batch_stats"]
            return module.apply(variables, x, train=False)

        outputs = dict(start("encoder", self.encoder, images))
        for name, head in self.heads.items():
            outputs[head.output] = start(name, head.module, outputs[head.reads])
        return params, stats

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
        blocks, stats = self._apply(
            "encoder", self.encoder, params, stats, [views[g] for g in groups], train
        )
        found: dict[str, list[jax.Array]] = {
            name: [block[name] for block in blocks] for name in read_from_encoder & set(blocks[0])
        }
        for name in heads:
            head = self.heads[name]
            inputs = [{"x": x} for x in found[head.reads]]
            found[head.output], stats = self._apply(name, head.module, params, stats, inputs, train)
        full = {n: [x.astype(jnp.float32) for x in found[n]] for n in names}
        return {n: dict(zip(groups, full[n])) for n in names}, stats

    def apply_head(self, name: str, params: PyTree, stats: PyTree, x: jax.Array) -> jax.Array:
        """One head on arrays [..., D] from elsewhere, with its running statistics."""
        variables = {"params": params[name]}
        if name in stats:
            variables["batch_stats"] = stats[name]
        out: Any = self.heads[name].module.apply(variables, x, train=False)
        return jnp.asarray(out, jnp.float32)

    def _apply(
        self,
        name: str,
        module: nn.Module,
        params: PyTree,
        stats: PyTree,
        blocks: Sequence[Mapping[str, jax.Array]],
        train: bool,
    ) -> tuple[list[Any], PyTree]:
        """One network on every block; blocks that share statistics pass it as one."""
        counts = [block["x"].shape[1] for block in blocks]
        mode = self.statistics if train and name in stats else "all"
        if mode == "view":
            parts = [
                jax.tree.map(lambda a, i=i: a[:, i : i + 1], block)
                for block, count in zip(blocks, counts)
                for i in range(count)
            ]
        elif mode == "all" and len({_sample_shapes(block) for block in blocks}) == 1:
            parts = [jax.tree.map(lambda *a: jnp.concatenate(a, 1), *blocks)]
        else:
            parts = list(blocks)
        done = []
        for part in parts:
            out, stats = self._pass(name, module, params, stats, part, train)
            done.append(out)
        whole = done if len(done) == len(blocks) and mode != "view" else _regroup(done, counts)
        return whole, stats

    def _pass(
        self,
        name: str,
        module: nn.Module,
        params: PyTree,
        stats: PyTree,
        block: PyTree,
        train: bool,
    ) -> tuple[Any, PyTree]:
        views = block["x"].shape[1]
        learns = train and name in stats
        variables = {"params": params[name]}
        if name in stats:
            variables["batch_stats"] = stats[name]

        def apply(block: PyTree) -> Any:
            fields = {k: rearrange(a, "b v ... -> (b v) ...") for k, a in block.items()}
            x = fields.pop("x")
            if learns:
                out, new = module.apply(variables, x, train=True, mutable=["batch_stats"], **fields)
            else:
                out, new = module.apply(variables, x, train=train, **fields), {}
            out = jax.tree.map(lambda a: rearrange(a, "(b v) ... -> b v ...", v=views), out)
            return (out, new) if learns else out

        if not learns:
            return batch_sharded(chunked(apply, self.microbatches)(block)), stats
        out, new = apply(block)
        return batch_sharded(out), {**stats, name: new["batch_stats"]}


def _sample_shapes(block: Mapping[str, jax.Array]) -> tuple[Any, ...]:
    return tuple((name, block[name].shape[2:]) for name in sorted(block))


def _regroup(parts: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """The parts' views, one after another, cut again into groups of `counts` views."""
    joined = jax.tree.map(lambda *a: jnp.concatenate(a, 1), *parts)
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    return [
        jax.tree.map(lambda a, e=end, n=count: a[:, e - n : e], joined)
        for end, count in zip(ends, counts)
    ]


def order_heads(modules: Mapping[str, tuple[nn.Module, str, str]]) -> dict[str, Head]:
    """Heads by name, each after the one that it reads; what nobody makes comes from the encoder.

    Raises:
      ConfigError: heads that read each other in a circle, or two with one output name.
    """
    outputs = [output for _, _, output in modules.values()]
    for output in outputs:
        if outputs.count(output) > 1:
            raise ConfigError(f"student: two heads give {output!r}; set another `output`")
    ordered: dict[str, Head] = {}
    waiting = dict(modules)
    while waiting:
        made = {head.output for head in ordered.values()}
        ready = [n for n, (_, reads, _) in waiting.items() if reads in made or reads not in outputs]
        if not ready:
            raise ConfigError(f"student: the heads {sorted(waiting)} read each other in a circle")
        for name in ready:
            ordered[name] = Head(*waiting.pop(name))
    return ordered


def head_place(name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """(reads, output) of a head: its fields, or the convention for its name.

    Raises:
      ConfigError: a head of another name without both fields.
    """
    reads, output = PLACES.get(name, ("", ""))
    reads, output = config.get("reads", reads), config.get("output", output)
    if not reads or not output:
        raise ConfigError(
            f"student.{name}: needs `reads` and `output` (only projector and predictor have "
            f"defaults{near(name, PLACES)})"
        )
    return reads, output
