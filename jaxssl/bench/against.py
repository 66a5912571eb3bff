"""Our step against the same training in another library: `--against=NAME[,NAME]`.

A round is k steps of ours, then k steps of each peer, in another interpreter that waits meanwhile:
the same networks, batches of uint8 images in memory, views, precision, optimizer and threads.
"""

import contextlib
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxssl.bench.measure import Measure, in_turn, ratios
from jaxssl.bench.peers import install, interpreter
from jaxssl.bench.peers.describe import describe
from jaxssl.bench.peers.process import Peer, Skipped
from jaxssl.bench.profile import mfu, step_flops
from jaxssl.bench.workload import Workload
from jaxssl.config.errors import ConfigError
from jaxssl.program import Program
from jaxssl.report import human

OURS = "jaxssl"
ABSENT = "not installed; python -m jaxssl.bench.peers.install "
# Peers that are built layer by layer as ours, so that a difference is a mistake.
EQUAL = ("torch", "torch_compile", "lightly")


class Against(NamedTuple):
    """The outcome.

    Attributes:
      measures: of all who took part; empty where no peer did.
      facts: peer -> what it says of itself.
      skipped: peer -> why it took no part, or in what it failed.
    """

    measures: list[Measure]
    facts: dict[str, dict[str, Any]]
    skipped: dict[str, str]


def compare(workload: Workload, repeats: int, names: Sequence[str], python: str = "") -> Against:
    """Times our bare step and the peers' in turn, `workload.steps - 1` steps at a time.

    Args:
      workload: ours.
      repeats: rounds, after one that is not counted.
      names: of peers.
      python: their interpreter; by default each has the environment that
        `jaxssl.bench.peers.install` made.

    Raises:
      ConfigError: networks that differ, or a peer that fails after its first step.
    """
    absent = {} if python else {name: ABSENT + name for name in names if not install.ready(name)}
    skipped = dict(absent)
    present = [name for name in names if name not in absent]
    if not present:
        return Against([], {}, skipped)
    peers: dict[str, Peer] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        data = pathlib.Path(folder) / "batches.npy"
        for name in present:
            where = pathlib.Path(python) if python else interpreter(name)
            peers[name] = stack.enter_context(Peer(name, where))
        np.save(data, np.stack([np.asarray(batch["image"]) for batch in workload.batches]))
        description = describe(workload.config, workload.program.info, str(data))
        ours = parameters(workload.program)
        first: dict[str, float] = {}
        for name in present:
            try:
                peers[name].make(description)
                first[name] = peers[name].run(1)
            except (Skipped, ConfigError) as why:
                skipped[name] = str(why)
                del peers[name]
                continue
            if name in EQUAL:
                check_equal(name, ours, peers[name].parameters)
        if not peers:
            return Against([], {}, skipped)
        counted = workload.steps - 1
        cpu: list[float] = []

        def own() -> float:
            before = time.process_time()
            seconds = workload.bare_seconds()
            # One step more than is counted: the one that warms up.
            cpu.append((time.process_time() - before) * counted / workload.steps)
            return seconds

        sides: dict[str, Callable[[], float]] = {OURS: own}
        sides |= {name: functools.partial(peer.run, counted) for name, peer in peers.items()}
        found = in_turn(sides, repeats)
        facts = {
            name: peer.facts | {"parameters": peer.parameters, "loss": peer.loss}
            for name, peer in peers.items()
        }
    measures = []
    for name in peers:
        measures.append(
            Measure(f"{OURS} over {name}, in steps/s", ratios(found[name], found[OURS]))
        )
    counts = step_flops(workload)
    for name, spent in found.items():
        rates = [counted / s for s in spent]
        measures.append(Measure(f"{name} steps/s", rates))
        measures += [m._replace(name=f"{name} {m.name}") for m in mfu(counts, rates)]
    # On a machine with other work these say more than the clock does. The first is not counted.
    worked = {OURS: cpu} | {name: peer.cpu_seconds for name, peer in peers.items()}
    for name, spent in worked.items():
        kept = [s / counted for s in spent[-repeats:]]
        measures.append(Measure(f"{name} CPU seconds a step", kept))
    assert workload.compile_seconds is not None  # its program is there
    measures.append(Measure(f"{OURS} compile seconds", [workload.compile_seconds], human.duration))
    peaks = {OURS: peak_bytes()} | {name: peer.peak_bytes for name, peer in peers.items()}
    for name, peak in peaks.items():
        if peak:
            measures.append(Measure(f"{name} peak bytes of a device", [peak], human.size))
    for name, peer in peers.items():
        # What the first step takes longer than a usual one is warming up or compiling.
        longer = max(0.0, first[name] - float(np.median(found[name])) / counted)
        spent = [peer.made_seconds + longer]
        measures.append(Measure(f"{name} seconds to be ready", spent, human.duration))
    return Against(measures, facts, skipped)


def peak_bytes() -> float:
    """The most that arrays and temporaries took of a device so far; 0 where it does not tell."""
    found = jax.devices()[0].memory_stats() or {}
    return float(found.get("peak_bytes_in_use", 0))


def parameters(program: Program) -> dict[str, int]:
    """Network -> how many numbers it learns."""
    params = program.shapes.params
    return {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}


def check_equal(name: str, ours: Mapping[str, int], theirs: Mapping[str, int]) -> None:
    """Raise ConfigError where a network of the peer has another number of parameters."""
    for network, count in ours.items():
        if theirs.get(network) != count:
            found = theirs.get(network)
            raise ConfigError(
                f"peer {name}: {network} has {found} parameters, ours {count}: not the same network"
            )
