"""`python -m jaxssl.bench [NAME ...] [--config=FILE[:PRESET]] [--repeats=N] [--json=FILE]`.

With `--against=PEER[,PEER]` our step is timed against other libraries' too: `jaxssl.bench.peers`.
"""

import argparse
import importlib
import os
import pkgutil
import platform
import sys
from collections.abc import Sequence
from typing import Any

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew
    if any(arg.startswith("--against") for arg in sys.argv):
        runtime.share_device()

import jax

from jaxssl import bench
from jaxssl.bench import against
from jaxssl.bench.peers import check_peer
from jaxssl.bench.workload import Workload
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.report.progress import screen
from jaxssl.report.writers import write_json

USAGE = (
    "python -m jaxssl.bench [NAME ...] [--config=FILE[:PRESET]] [--config.any.key=value ...] "
    "[--repeats=N] [--steps=N] [--json=FILE] [--against=PEER[,PEER]] [--peer-python=PATH]"
)
LEAST = {"repeats": 1, "steps": 2}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input. A goal that is missed is shown, and is no failure."""
    try:
        names, flags, overrides = parse(sys.argv[1:] if argv is None else argv)
        workload = Workload(configs.load(flags["config"], overrides), flags["steps"])
        facts = machine()
        about = {"config": flags["config"], "steps": flags["steps"], "repeats": flags["repeats"]}
        screen([("machine", list(facts.items())), ("run", list(about.items()))], title="bench")
        results: dict[str, Any] = {}
        for name in names:
            measures = importlib.import_module(f"jaxssl.bench.{name}").run(
                workload, flags["repeats"]
            )
            screen([(name, [(m.name, m.text()) for m in measures])])
            results[name] = {m.name: m.record() for m in measures}
            save(flags["json"], facts, about, benchmarks=results)
        if flags["against"]:
            met = against.compare(
                workload, flags["repeats"], flags["against"], flags["peer_python"]
            )
            screen(peer_sections(met))
            found = {m.name: m.record() for m in met.measures}
            peers = {"against": found, "peers": met.facts, "skipped": met.skipped}
            save(flags["json"], facts, about, benchmarks=results, **peers)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def save(path: str, facts: dict[str, Any], about: dict[str, Any], **results: Any) -> None:
    """Writes what is known so far, where a file is asked for."""
    if path:
        write_json(path, {"machine": facts, **about, **results})


def peer_sections(met: against.Against) -> list[tuple[str, list[tuple[str, Any]]]]:
    """What `screen` shows of peers: who they are, how fast, and why some took no part."""
    sections: list[tuple[str, list[tuple[str, Any]]]] = []
    for name, facts in met.facts.items():
        sections.append((name, list(facts.items())))
    if met.measures:
        sections.append(("against", [(m.name, m.text()) for m in met.measures]))
    if met.skipped:
        sections.append(("skipped", list(met.skipped.items())))
    return sections


def parse(argv: Sequence[str]) -> tuple[list[str], dict[str, Any], list[str]]:
    """(benchmarks, flags, config overrides) from the command line.

    Raises:
      ConfigError: no such benchmark or flag, or a number that is none.
    """
    parser = argparse.ArgumentParser(prog="jaxssl.bench", usage=USAGE, allow_abbrev=False)
    parser.add_argument("--config", default="experiments/lejepa.py", help="what the step is of")
    parser.add_argument("--repeats", default="5", help="how often each side is timed")
    parser.add_argument("--steps", default="60", help="of one repeat")
    parser.add_argument("--json", default="", help="a file for the results")
    parser.add_argument("--against", default="", help="peers, with commas between")
    parser.add_argument("--peer-python", default="", help="the interpreter of all peers")
    parsed, rest = parser.parse_known_args(list(argv))
    flags = vars(parsed)
    for name, least in LEAST.items():
        text = flags[name]
        if not text.isdecimal() or int(text) < least:
            raise ConfigError(f"--{name}: found {text!r}, expected a whole number >= {least}")
        flags[name] = int(text)
    names = [arg for arg in rest if not arg.startswith("-")]
    known = benchmarks()
    for name in names:
        if name not in known:
            raise ConfigError(f"no benchmark {name!r}{near(name, known)}")
    flags["against"] = [check_peer(name) for name in flags["against"].split(",") if name]
    # Peers alone, unless benchmarks are named beside them.
    names = names or ([] if flags["against"] else known)
    return names, flags, [arg for arg in rest if arg.startswith("-")]


def benchmarks() -> list[str]:
    """The names of all benchmarks."""
    modules = [m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_")]
    return [n for n in modules if hasattr(importlib.import_module(f"jaxssl.bench.{n}"), "run")]


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": f"{jax.device_count()} x {device.device_kind}",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": f"{os.getloadavg()[0]:.2f} before the first benchmark",
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
