"""A config made concrete: data, mesh, method, shardings and the compiled step."""

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxssl import data, methods, optim, state
from jaxssl.config import durations, finder
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.data import pipeline, streams
from jaxssl.devices import sharding
from jaxssl.method import Context, Field, Info, Method, Optimizer, StreamInfo
from jaxssl.state import State
from jaxssl.step import make_ops, make_step
from jaxssl.tables import Table

PyTree = Any


class Program:
    """Everything that a config determines before the first number is computed.

    Args:
      config: from `jaxssl.config.load`.
      artifacts: what earlier stages left, by stage name: {"params": ..., "extra": ...} or a table.
      devices: default all.
      source: the training split, where it is not to be opened from `config.data`.

    Attributes:
      source: the training split, which evaluations read; whole, with its own labels.
      streams: what is trained on, by name; "" where there are none: that split, or what
        `data.part`, `data.join`, `data.labels`, `data.noise` and `data.tasks` make of it.
      info: `jaxssl.method.Info`.
      mesh, method, optimizers: as the names say.
      shapes, shardings: of the whole state.

    Raises:
      ConfigError: whatever in the config or the data does not fit, before anything is compiled.
    """

    def __init__(
        self,
        config: Any,
        artifacts: Mapping[str, PyTree] | None = None,
        devices: Sequence[jax.Device] | None = None,
        source: Any = None,
    ):
        self.config = config
        self.mesh = sharding.make_mesh(config.mesh, streams.batches(config), devices)
        left = artifacts or {}
        tables = {name: found for name, found in left.items() if isinstance(found, Table)}
        self.source = data.load(config.data, "train") if source is None else source
        self.streams = streams.open_streams(config, self.source, tables)
        self.info = describe(config, self.source, self.streams, tables)
        # Outside of the mesh: constants that are made here belong to none, and fit any.
        family = find_family(config.method)
        if self.info.streams and not getattr(family, "READS_STREAMS", False):
            raise ConfigError(f"streams: found some, but the method {config.method!r} reads none")
        self.method = family.build(config, self.info)
        with jax.set_mesh(self.mesh):
            self.optimizers = self._optimizers(self.method)
            # What a frozen teacher may start from: the params of each earlier stage.
            self._artifacts = _params_of(artifacts)
            self._init = state.make_init(self.method, self.optimizers, self.info)
            self.key = jax.random.key(config.train.seed)
            self.shapes = jax.eval_shape(self._init, self.key, self._artifacts)
            self.shardings = sharding.state_shardings(self.mesh, self.shapes, config.mesh)
        self._batch_sharding = sharding.batch_sharding(self.mesh)

    def _optimizers(self, method: Method) -> Mapping[str, Optimizer]:
        if method.optimizers:
            return method.optimizers
        params, _ = jax.eval_shape(method.init, jax.random.key(0), state.example_batch(self.info))
        return {"main": Optimizer(optim.make(self.config.optimizer, params, self.info.steps))}

    def with_seed(self, seed: int, artifacts: Mapping[str, PyTree] | None = None) -> "Program":
        """The program of the same config with another `train.seed`; what is compiled is shared.

        Args:
          seed: of the initialisation, the order of the samples and the views.
          artifacts: what earlier stages left, of the same shapes; no tables, which are a part of
            what is compiled.
        """
        other = copy.copy(self)
        other.config = configs.merged(self.config, {"train.seed": seed})
        other._artifacts = _params_of(artifacts)
        other.streams = streams.open_streams(other.config, self.source)
        with jax.set_mesh(self.mesh):
            other.key = jax.random.key(seed)
        return other

    def init(self) -> State:
        """The state at step 0: the same numbers on any number of devices."""
        with jax.set_mesh(self.mesh):
            return jax.jit(self._init, out_shardings=self.shardings)(self.key, self._artifacts)

    @functools.cached_property
    def step(self) -> Any:
        """The compiled (state, batch) -> (state, metrics); the state's buffers are donated."""
        with jax.set_mesh(self.mesh):
            step = jax.jit(
                make_step(self.method, self.optimizers),
                donate_argnums=0,
                out_shardings=(self.shardings, None),
            )
            return step.lower(self.abstract_state(), self.abstract_batch()).compile()

    def batches(
        self, start: int, source: data.Source | None = None
    ) -> Iterator[Mapping[str, jax.Array]]:
        """The global batches of the steps start, start + 1, ..., on the devices, one ahead.

        Args:
          start: the first step.
          source: of the samples, where they are not those that are trained on; of all streams.
        """
        read = self.streams
        if source is not None:
            read = {name: stream._replace(source=source) for name, stream in read.items()}
        rows = pipeline.stream_batches(
            read,
            start=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        placed = (self.put(batch) for batch in rows)
        waiting = next(placed)
        for batch in placed:
            yield waiting
            waiting = batch

    def context(
        self, state: State, batch: Mapping[str, jax.Array], key: jax.Array | None = None
    ) -> Context:
        """What a readout of the method reads; without a key that of seed 0."""
        ops = make_ops(self.method, self.optimizers)
        return ops.context(state, batch, jax.random.key(0) if key is None else key)

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's rows as a part of the global batch."""
        return {
            name: jax.make_array_from_process_local_data(self._batch_sharding, rows)
            for name, rows in batch.items()
        }

    def abstract_state(self) -> State:
        """The state as shapes with shardings."""
        return jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            self.shapes,
            self.shardings,
        )

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The global batch as shapes with shardings."""
        fields = self.info.fields
        return {n: self._abstract(field, self.info.batch_of(n)) for n, field in fields.items()}

    def evaluated_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of what is evaluated, as large as that of a step, as shapes with shardings."""
        fields = self.source.fields
        return {n: self._abstract(field, self.info.global_batch) for n, field in fields.items()}

    def _abstract(self, field: Field, batch: int) -> jax.ShapeDtypeStruct:
        shape, dtype = (batch, *field.shape), np.dtype(field.dtype)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=self._batch_sharding)

    @property
    def bad_records(self) -> list[str]:
        """A line on each record met so far that could not be read, of all sources."""
        sources = [self.source, *(stream.source for stream in self.streams.values())]
        return list(dict.fromkeys(line for source in sources for line in source.bad_records))


def describe(
    config: Any, source: data.Source, of: Mapping[str, pipeline.Stream], tables: Mapping[str, Table]
) -> Info:
    """What a method may know of the run that it is built for.

    Args:
      config: of the run.
      source: the training split.
      of: the streams that are trained on.
      tables: that earlier stages made, by name.
    """
    batch = config.train.global_batch
    samples = len(of[""].source if "" in of else source)
    return Info(
        fields=streams.fields(of),
        num_samples=samples,
        num_classes=source.num_classes,
        steps=durations.resolve(config.train, samples, batch),
        steps_per_epoch=durations.steps_per_epoch(samples, batch),
        global_batch=batch,
        streams={n: StreamInfo(len(s.source), s.batch) for n, s in of.items() if n},
        tables=tables,
    )


def _params_of(artifacts: Mapping[str, PyTree] | None) -> dict[str, PyTree]:
    left = artifacts or {}
    return {name: x["params"] for name, x in left.items() if not isinstance(x, Table)}


def find_family(name: str) -> Any:
    """The module of `jaxssl.methods` with that name, or of that dotted name, with its `build`.

    Raises:
      ConfigError: none there.
    """
    return finder.find(methods, name, defines="build", field="method", what="a family")
