"""The program of a run on devices that are not here, compiled for them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.data import streams
from jaxssl.devices import sharding
from jaxssl.plan.flops import Flops, count
from jaxssl.program import Program
from jaxssl.run import stages, table_stages
from jaxssl.step import make_step


class Planned(Program):
    """A program whose mesh is of absent devices: it can be compiled, and not run.

    Args:
      config: of one stage.
      devices: of a topology.
      source: the training split, or what stands for it.
      artifacts: the shapes that earlier stages leave, by name.

    Raises:
      ConfigError: as `Program`.
    """

    def __init__(
        self,
        config: Any,
        devices: Sequence[jax.Device],
        source: Any,
        artifacts: Mapping[str, Any] | None = None,
    ):
        mesh = sharding.make_mesh(config.mesh, streams.batches(config), devices)
        # Building computes small things, for which a device that is here is needed.
        here = configs.merged(config, sharding.ONE_DEVICE)
        super().__init__(here, artifacts, jax.local_devices(backend="cpu")[:1], source)
        self.config, self.mesh = config, mesh
        self.shardings = sharding.state_shardings(mesh, self.shapes, config.mesh)
        self._batch_sharding = sharding.batch_sharding(mesh)

    def flops(self) -> Flops:
        """Of one step, over all devices."""
        with jax.set_mesh(self.mesh):
            step = make_step(self.method, self.optimizers)
            return count(step, self.shapes, self.abstract_batch())


def of_stage(
    config: Any, name: str, devices: Sequence[jax.Device], source: Any
) -> tuple[str, Planned]:
    """(its name, the program) of a stage, the last that trains unless named.

    Raises:
      ConfigError: no stage of that name takes a step.
    """
    every = stages.resolve(config, pathlib.Path())
    plan = [stage for stage in every if not stage.evaluates_only]
    names = [stage.name for stage in plan if stage.trains]
    if name and name not in names:
        raise ConfigError(f"--stage={name}: no stage that trains{near(name, names)}")
    chosen = name or names[-1]
    place = [stage.name for stage in plan].index(chosen)
    left = stages.imported(config)
    for stage in plan[:place]:
        if stage.make:
            left[stage.name] = table_stages.table(stage, every, left, split=source)
            continue
        here = configs.merged(stage.config, sharding.ONE_DEVICE)
        earlier = Program(here, left, jax.local_devices(backend="cpu")[:1], source)
        left[stage.name] = stages.artifact(earlier.shapes)
    return chosen, Planned(plan[place].config, devices, source, left)
