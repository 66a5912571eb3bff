"""A config made concrete: data, mesh, method, shardings and the compiled step."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxssl import data, durations, finder, methods, optim, sharding, state
from jaxssl.data import pipeline
from jaxssl.errors import ConfigError
from jaxssl.method import Info, Method, Optimizer
from jaxssl.state import State
from jaxssl.step import make_step

PyTree = Any


class Program:
    """Everything that a config determines before the first number is computed.

    Args:
      config: from `jaxssl.config.load`.
      artifacts: what earlier stages left, by stage name: {"params": ..., "extra": ...}.
      devices: default all.
      source: the training split, where it is not to be opened from `config.data`.

    Attributes:
      source: the training split.
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
        batch = config.train.global_batch
        self.mesh = sharding.make_mesh(config.mesh, batch, devices)
        self.source = data.load(config.data, "train") if source is None else source
        if batch > len(self.source):
            raise ConfigError(
                f"train.global_batch: {batch} is more than the {len(self.source)} samples of "
                f"{self.source.name}"
            )
        steps = durations.resolve(config.train, len(self.source), batch)
        self.info = Info(
            shapes=dict(self.source.shapes),
            dtypes=dict(self.source.dtypes),
            num_samples=len(self.source),
            num_classes=self.source.num_classes,
            steps=steps,
            steps_per_epoch=durations.steps_per_epoch(len(self.source), batch),
            global_batch=batch,
        )
        # Outside of the mesh: constants that are made here belong to none, and fit any.
        self.method = find_family(config.method).build(config, self.info)
        with jax.set_mesh(self.mesh):
            self.optimizers = self._optimizers(self.method)
            # What a frozen teacher may start from: the params of each earlier stage.
            self._artifacts = {name: left["params"] for name, left in (artifacts or {}).items()}
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
          source: of the samples, where they are not the training split's.
        """
        rows = pipeline.batches(
            source or self.source,
            seed=self.config.train.seed,
            global_batch=self.info.global_batch,
            start=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        placed = (self.put(batch) for batch in rows)
        waiting = next(placed)
        for batch in placed:
            yield waiting
            waiting = batch

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
        return {
            name: jax.ShapeDtypeStruct(
                (self.info.global_batch, *shape),
                np.dtype(self.info.dtypes[name]),
                sharding=self._batch_sharding,
            )
            for name, shape in self.info.shapes.items()
        }


def find_family(name: str) -> Any:
    """The module of `jaxssl.methods` with that name, or of that dotted name, with its `build`.

    Raises:
      ConfigError: none there.
    """
    return finder.find(methods, name, defines="build", field="method", what="a family")
