"""Chips by their public figures, and topologies of them that are not here."""

import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from jaxssl.config.errors import ConfigError, near

GiB = 2.0**30
# What keeps libtpu from asking a cloud host about itself, from writing to standard error, and from
# claiming chips: compiling needs none, and another process may hold them.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Chip(NamedTuple):
    """Public figures of one chip.

    Attributes:
      kind: as a topology names it.
      memory: bytes of HBM.
      flops: peak FLOP/s in bfloat16.
      hbm: bytes/s of HBM.
      ici: bytes/s that its links to other chips receive, all together; they send as much.
      source: where the figures stand.
    """

    kind: str
    memory: float
    flops: float
    hbm: float
    ici: float
    source: str


_DOCS = "docs.cloud.google.com/tpu/docs/"
# By the kind of device that JAX tells. The documents give the links' rate both ways together (or,
# of v4, one way in bits); half of it is one way.
CHIPS = {
    "TPU v4": Chip("v4", 32 * GiB, 275e12, 1200e9, 300e9, f"{_DOCS}v4"),
    "TPU v5 lite": Chip("v5e", 16 * GiB, 197e12, 819e9, 200e9, f"{_DOCS}v5e"),
    "TPU v5": Chip("v5p", 95 * GiB, 459e12, 2765e9, 600e9, f"{_DOCS}v5p"),
    "TPU v6 lite": Chip("v6e", 32 * GiB, 918e12, 1638e9, 400e9, f"{_DOCS}v6e"),
    "TPU7x": Chip("tpu7x", 192 * GiB, 2307e12, 7380e9, 600e9, f"{_DOCS}tpu7x"),
}
_NVIDIA = "www.nvidia.com/en-us/data-center/"
# What a benchmark may run on, beside those: bfloat16 without sparsity, half of what NVLink moves
# both ways.
GPUS = {
    "NVIDIA A100-SXM4-40GB": Chip("a100", 40e9, 312e12, 1555e9, 300e9, f"{_NVIDIA}a100"),
    "NVIDIA A100-SXM4-80GB": Chip("a100", 80e9, 312e12, 2039e9, 300e9, f"{_NVIDIA}a100"),
    "NVIDIA H100 80GB HBM3": Chip("h100", 80e9, 989e12, 3350e9, 450e9, f"{_NVIDIA}h100"),
    "NVIDIA H200": Chip("h200", 141e9, 989e12, 4800e9, 450e9, f"{_NVIDIA}h200"),
}
# Usual slices, for suggestions; any other that libtpu knows works too.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
SLICES = {
    kind: _FLAT if kind in ("v5e", "v6e") else _DEEP for kind in (c.kind for c in CHIPS.values())
}


class Topology(NamedTuple):
    """Devices of one kind that need not be here.

    Attributes:
      name: as given.
      devices: as JAX sees them.
      chips: how many chips they are; some kinds of chip are two devices.
      hosts: how many machines hold them.
      chip: its figures, None where there are none.
    """

    name: str
    devices: Sequence[jax.Device]
    chips: int
    hosts: int
    chip: Chip | None

    @property
    def per_device(self) -> Chip | None:
        """The chip's figures, shared among its devices."""
        if self.chip is None:
            return None
        n = len(self.devices) / self.chips
        c = self.chip
        return c._replace(memory=c.memory / n, flops=c.flops / n, hbm=c.hbm / n, ici=c.ici / n)


def figures(device: jax.Device) -> Chip | None:
    """Public figures of a device that is here, None where there are none.

    >>> figures(jax.devices("cpu")[0]) is None
    True
    """
    return (CHIPS | GPUS).get(device.device_kind)


def count_chips(devices: Sequence[Any]) -> int:
    """How many chips the devices are; some kinds of chip are two devices, which share a place.

    >>> count_chips(jax.devices("cpu")[:1])
    1
    """
    where = lambda d: (getattr(d, "slice_index", 0), *getattr(d, "coords", (d.id,)))
    return len({where(d) for d in devices})


def resolve(name: str) -> Topology:
    """The topology "cpu:N", or "KIND:AxB" or "KIND:AxBxC" chips of a kind that libtpu knows.

    Raises:
      ConfigError: none of that name, or libtpu is not installed.
    """
    kind, _, layout = name.partition(":")
    if kind == "cpu":
        return _cpus(name, layout)
    if not re.fullmatch(r"\w+:\d+(x\d+){1,2}(_(un)?twisted)?", name):
        raise ConfigError(f"--topology={name}: expected KIND:AxB[xC] or cpu:N{_nearest(name)}")
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology={name}: needs the compiler for TPUs; pip install 'jaxssl[plan]'"
        )
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    # A v4 is two devices unless its two cores are to be one, as on real slices.
    more = {"chip_config_name": "megacore"} if kind == "v4" else {}
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **more)
    except jax.errors.JaxRuntimeError as error:
        why = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")
        raise ConfigError(f"--topology={name}: {why}{_nearest(name)}") from None
    devices: Any = found.devices
    chips = count_chips(devices)
    hosts = len({d.process_index for d in devices})
    return Topology(name, devices, chips, hosts, CHIPS.get(devices[0].device_kind))


def _cpus(name: str, layout: str) -> Topology:
    if not layout.isdecimal() or int(layout) < 1:
        raise ConfigError(f"--topology={name}: expected cpu:N, e.g. cpu:8")
    here = jax.devices("cpu")
    if len(here) < int(layout):
        raise ConfigError(
            f"--topology={name}: {len(here)} CPU devices here; set JAX_NUM_CPU_DEVICES={layout}"
        )
    return Topology(name, here[: int(layout)], int(layout), 1, None)


def _nearest(name: str) -> str:
    """The near name; of a slice in the cloud's own naming, what it is called here."""
    kind, dash, count = name.partition("-")
    if dash and kind in SLICES and count.isdecimal():
        # The cloud counts cores of v4 and v5p, of which a chip has two.
        chips = int(count) // (2 if kind in ("v4", "v5p") else 1)
        for layout in SLICES[kind]:
            if chips_of(layout) == chips:
                return f"; a slice {name} has {chips} chips: {kind}:{layout}"
    return near(name, (f"{kind}:{layout}" for kind in SLICES for layout in SLICES[kind]))


def chips_of(layout: str) -> int:
    """How many chips "AxBxC" are.

    >>> chips_of("4x4x8")
    128
    """
    total = 1
    for side in layout.split("x"):
        total *= int(side)
    return total
