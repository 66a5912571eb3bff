"""Provoked failures and healthy runs: when the alarms speak, and of what.

  python -m jaxssl.bench.alarms [--steps=N] [--only=NAME,NAME] [--json=FILE]

Every failure is a change of a line or two in a config; the alarm should come before a fifth of the
run is over. Good runs should raise none. A run ends at its first alarm.
"""

import contextlib
import io
import math
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew

from jaxssl.config import command_line as cli
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, Diverged, near
from jaxssl.evals import settings
from jaxssl.report import human
from jaxssl.report.progress import screen
from jaxssl.report.writers import read_json, write_json
from jaxssl.run import train
from jaxssl.watch.alarms import SHORTEST

USAGE = "python -m jaxssl.bench.alarms [--steps=N] [--only=NAME,NAME] [--json=FILE]"
GOAL = 0.2  # of the run


class Case(NamedTuple):
    """An experiment and what is changed in it: a failure where anything is."""

    experiment: str
    changes: Mapping[str, Any] = {}


CASES = {
    "lejepa without regulariser": Case(
        "lejepa", {"losses.prediction.weight": 1.0, "losses.sigreg.weight": 0.0}
    ),
    # The squared distance of prediction and target, with the gradient of both.
    "simsiam without stop-gradient": Case(
        "simsiam",
        {
            "losses.prediction.fn": "vicreg",
            "losses.prediction.variance_weight": 0.0,
            "losses.prediction.covariance_weight": 0.0,
        },
    ),
    "byol without predictor": Case(
        "byol", {"losses.prediction.student": "projection", "student.predictor": None}
    ),
    "dino without centre and sharpening": Case(
        "dino", {"losses.dino.center.momentum": 1.0, "losses.dino.teacher_temperature": 0.1}
    ),
    "vicreg without variance": Case("vicreg", {"losses.vicreg.variance_weight": 0.0}),
    "mae that hides nothing": Case("mae", {"masks.hidden.ratio": 0.0}),
    **{
        name: Case(name)
        for name in (
            *("lejepa", "simclr", "byol", "simsiam", "vicreg"),
            *("barlow_twins", "dino", "swav", "mae", "moco_v3"),
        )
    },
}


class Found(NamedTuple):
    """What became of a case: its steps, and its alarm where there was one."""

    steps: int
    failure: bool
    alarm: Mapping[str, Any] | None
    ended: str

    @property
    def met(self) -> bool:
        """Whether a failure was noticed in time, or a good run left alone."""
        if not self.failure:
            return self.alarm is None and self.ended == "finished"
        return self.alarm is not None and self.alarm["step"] < GOAL * self.steps

    def text(self) -> str:
        """For the table.

        >>> alarm = dict(step=60, kind="copying", metric="train/loss", value=0.0, baseline=0.0)
        >>> Found(600, True, alarm, "failed").text()
        'step 60 of 600: copying, train/loss 0 (0); expected before step 120: met'
        """
        wanted = f"before step {math.ceil(GOAL * self.steps)}" if self.failure else "none"
        found = f"no alarm in {self.steps} steps, {self.ended}"
        if self.alarm is not None:
            kind, metric = self.alarm["kind"], self.alarm["metric"]
            numbers = [human.value(self.alarm[name]) for name in ("value", "baseline")]
            found = f"step {self.alarm['step']} of {self.steps}: {kind}, {metric} {numbers[0]}"
            found += f" ({numbers[1]})"
        return f"{found}; expected {wanted}: {'met' if self.met else 'missed'}"


def load(case: Case, steps: int = 0) -> Any:
    """The digits config of a case, without what does not bear on its alarms; 0: its own length."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "experiments"
    config = configs.load(f"{folder / case.experiment}.py:digits")
    changes: dict[str, Any] = {f"evals.{name}": None for name in settings(config.evals)}
    changes |= {"evals.every_steps": 0, "checkpoint.every_steps": 0, "report.samples": 0}
    changes |= {"alarms.action": "stop", **case.changes}
    if steps:
        changes |= {"train.steps": steps, "train.epochs": 0.0, "train.examples": 0}
        changes["report.every_steps"] = max(1, min(config.report.every_steps, steps // 60))
        if steps < SHORTEST:
            changes["alarms.every_steps"] = max(1, steps // 20)
    return configs.merged(config, changes)


def measure(case: Case, steps: int = 0) -> Found:
    """Runs a case to its first alarm or its end."""
    config = load(case, steps)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.ExitStack() as quiet:
            quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
            quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
            quiet.enter_context(contextlib.suppress(Diverged))
            train.run(config, folder)
        summary = read_json(pathlib.Path(folder) / "summary.json")
    alarm = next(iter(summary["alarms"]), None)
    return Found(config.train.steps, bool(case.changes), alarm, summary["status"])


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input. A goal that is missed is shown, and is no failure."""
    try:
        names, steps, path = parse(argv)
        results: dict[str, Any] = {}
        rows = []
        for name in names:
            found = measure(CASES[name], steps)
            rows.append((name, found.text()))
            print(f"{name}: {found.text()}", flush=True)
            results[name] = {**found._asdict(), "met": found.met}
            if path:
                write_json(path, results)
        screen([("alarms", rows)])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None = None) -> tuple[list[str], int, str]:
    """(names of cases, steps, a file for the results) from the command line.

    Raises:
      ConfigError: no such flag or case, or a number that is none.
    """
    parser = cli.Parser(prog="jaxssl.bench.alarms", usage=USAGE)
    parser.add_argument("--steps", default="0", help="of every run; 0 is its own length")
    parser.add_argument("--only", default="", help="cases, with commas between them")
    parser.add_argument("--json", default="", help="a file for the results")
    flags, rest = parser.parse(argv)
    if rest:
        raise ConfigError(f"{rest[0]}: unknown argument; usage: {USAGE}")
    if not flags.steps.isdecimal():
        raise ConfigError(f"--steps: found {flags.steps!r}, expected a whole number")
    names = [name.strip() for name in flags.only.split(",") if name.strip()] or list(CASES)
    for name in names:
        if name not in CASES:
            raise ConfigError(f"--only: no case {name!r}{near(name, CASES)}")
    return names, int(flags.steps), flags.json


if __name__ == "__main__":
    sys.exit(main())
