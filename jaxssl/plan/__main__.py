"""`python -m jaxssl.plan --config=FILE[:PRESET] --topology=v5e:16x16 [--json=FILE]`."""

import sys
from collections.abc import Sequence
from typing import Any, cast

import jax

from jaxssl.config import command_line as cli
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.plan import chips, estimate, facts, largest
from jaxssl.plan.memory import OutOfMemory
from jaxssl.plan.program import Planned, of_stage
from jaxssl.plan.screen import sections
from jaxssl.report.progress import Pieces, screen
from jaxssl.report.writers import write_json

USAGE = (
    "python -m jaxssl.plan --config=FILE[:PRESET] --topology=v5e:16x16|cpu:8|... [--json=FILE] "
    "[--stage=NAME] [--samples=N] [--classes=K] [--memory=GiB] [--largest-batch] "
    "[--config.any.key=value ...]"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 it fits, 1 out of memory, 2 bad input."""
    try:
        flags, overrides = parse(argv)
        config = configs.load(flags.config, overrides)
        _use_cpus(flags.topology)
        topology = chips.resolve(flags.topology)
        split = facts.source(config.data, flags.samples, flags.classes)
        name, program = of_stage(config, flags.stage, topology.devices, split)
        limits = topology.per_device
        capacity = flags.memory * chips.GiB or (limits.memory if limits else 0.0)
        about = {"config": flags.config, "overrides": overrides, "stage": name}
        with Pieces(1) as pieces:
            pieces.begin(f"compiling for {topology.name}")
            try:
                record = about | estimate.record(program, topology, capacity)
                refuse_more_than(capacity, record)
                too_much = None
            except OutOfMemory as error:
                if not flags.largest_batch:
                    raise
                record, too_much = about, error
        if too_much is None:
            screen(sections(flags.config, record), title="plan")
        if flags.largest_batch:
            found = largest_batch(config, flags, topology, split, capacity, too_much is None)
            record["largest_batch"] = found
            screen([("largest global batch", [("fits", found or "none")])])
        if flags.json:
            write_json(flags.json, record)
        if too_much is not None:
            raise too_much
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OutOfMemory as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> tuple[Any, list[str]]:
    """(flags, config overrides) from the command line.

    Raises:
      ConfigError: a flag is missing, unknown or of another type.
    """
    parser = cli.Parser(prog="jaxssl.plan", usage=USAGE)
    parser.add_argument("--config", help="a config file, and a preset of it after a colon")
    parser.add_argument("--topology", help="KIND:AxB[xC] of a kind of TPU, or cpu:N")
    parser.add_argument("--json", default="", help="a file for all numbers")
    parser.add_argument("--stage", default="", help="the last that trains, unless named")
    parser.add_argument("--samples", type=int, default=0, help="N, where the data are not here")
    parser.add_argument("--classes", type=int, default=-1, help="of labels; 0 without")
    parser.add_argument("--memory", type=float, default=0.0, help="GiB of a device")
    parser.add_argument("--largest-batch", action="store_true", help="compiles about eight times")
    flags, overrides = parser.parse(argv)
    for name in ("config", "topology"):
        if not getattr(flags, name):
            raise ConfigError(f"--{name}: missing; usage: {USAGE}")
    for name in ("samples", "memory"):
        if getattr(flags, name) < 0:
            raise ConfigError(f"--{name}: found {getattr(flags, name)}, expected 0 or more")
    return flags, overrides


def refuse_more_than(capacity: float, record: dict[str, Any]) -> None:
    """Compilers for CPUs have no limit of memory; `--memory` may be less than a chip's, too.

    Raises:
      OutOfMemory: the step's peak is above `capacity` bytes; 0 is no limit.
    """
    if not fits(capacity, record["memory"]):
        raise OutOfMemory(estimate.too_much(record["memory"]))


def fits(capacity: float, needs: dict[str, Any]) -> bool:
    """Whether the peak is within `capacity` bytes; 0 is no limit."""
    return not capacity or needs["peak"] <= capacity


def largest_batch(
    config: Any, flags: Any, topology: chips.Topology, split: Any, capacity: float, own: bool
) -> int:
    """The largest global batch that fits, each tried by compiling its step.

    Args:
      config: of the run.
      flags: from `parse`.
      topology: from `chips.resolve`.
      split: the training split.
      capacity: bytes of memory of a device.
      own: whether the config's own global batch fits.

    Raises:
      ConfigError: the memory of a device is not known.
    """
    if not capacity:
        raise ConfigError("--largest-batch: no memory limit is known; give --memory=GiB")

    def program(batch: int) -> Planned:
        changed = configs.merged(config, {"train.global_batch": batch})
        return of_stage(changed, flags.stage, topology.devices, split)[1]

    first = program(config.train.global_batch)
    shares = first.mesh.shape["data"] * first.mesh.shape["fsdp"]
    unit = shares * config.train.microbatches  # a whole part of each microbatch for each share
    with Pieces(largest.MOST) as pieces:

        def does(batch: int) -> bool:
            if batch == config.train.global_batch:
                return own
            pieces.begin(f"global batch {batch:,}")
            try:
                return fits(capacity, estimate.needs(program(batch)))
            except OutOfMemory:
                return False

        return largest.search(does, config.train.global_batch, unit, len(split))


def _use_cpus(topology: str) -> None:
    """Small things are computed here, on CPUs; as many as are asked for, where that is still open.

    Once a backend is there, JAX refuses the change, and what is there is used.
    """
    count, settings = topology.removeprefix("cpu:"), cast(Any, jax.config)
    try:
        jax.config.update("jax_platforms", "cpu")
        if count.isdecimal():
            more = max(1, int(count), settings.jax_num_cpu_devices)
            jax.config.update("jax_num_cpu_devices", more)
    except RuntimeError:
        return


if __name__ == "__main__":
    sys.exit(main())
