"""The command line of the faults: trials, the file that holds them, and their table."""

import pathlib
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxssl.bench.faults.faults import FAULTS
from jaxssl.bench.faults.lab import Lab, Lost, Missed
from jaxssl.bench.faults.soak import soak
from jaxssl.config import command_line as cli
from jaxssl.config.errors import ConfigError, near
from jaxssl.report import human, markdown
from jaxssl.report.progress import Pieces
from jaxssl.report.writers import read_json, write_json

USAGE = (
    "python -m jaxssl.bench.faults [--faults=NAME,NAME] [--times=N] [--seed=S] [--steps=N] "
    "[--json=FILE]"
)
SOAK = "soak"
DRAWS = 5  # of the moment of a fault, until it comes before the run is over


class Settings(NamedTuple):
    """What the command line asks for."""

    faults: list[str]
    times: int
    seed: int
    steps: int
    json: str

    def trials(self, fault: str) -> int:
        """How often a fault is provoked; one long run is one."""
        return 1 if fault == SOAK else self.times


class Trial(NamedTuple):
    """One time that a fault was provoked.

    Args:
      provoked, survived: whether.
      seconds: from the second start to its first step, where there is one.
      note: what went wrong, or what was measured.
    """

    provoked: bool
    survived: bool
    seconds: float | None = None
    note: str = ""


def trial(lab: Lab, fault: str, number: int, asked: Settings) -> Trial:
    """Provokes a fault for the `number`-th time, at moments that follow from the seed."""
    try:
        if fault == SOAK:
            return Trial(True, True, None, soak(lab, asked.steps))
        for attempt in range(DRAWS):
            draw = random.Random(f"{asked.seed}/{fault}/{number}/{attempt}")
            try:
                return Trial(True, True, FAULTS[fault](lab, draw))
            except Missed:
                lab.clear()
        return Trial(False, False, None, f"the run was over before the fault, {DRAWS} times")
    except Lost as error:
        return Trial(True, False, None, str(error))
    finally:
        lab.clear()


def table(found: Mapping[str, Sequence[Trial]]) -> str:
    """The trials in markdown.

    >>> trials = [Trial(True, True, 2.0), Trial(True, True, 4.0), Trial(True, False)]
    >>> print(table({"sigkill": trials}).splitlines()[2].partition("bit. ")[2])
    | 3 | 2 | 3.0 s, at most 4.0 s |
    """
    lines = []
    for fault, trials in found.items():
        seconds = [t.seconds for t in trials if t.seconds is not None]
        to_step = "-"
        if seconds:
            median, most = statistics.median(seconds), max(seconds)
            to_step = f"{human.duration(median)}, at most {human.duration(most)}"
        provoked, survived = (
            str(sum(getattr(t, field) for t in trials)) for field in ("provoked", "survived")
        )
        lines.append([f"{fault}", meaning(fault), provoked, survived, to_step])
    return markdown.table(
        ["fault", "survived means", "provoked", "survived", "from start to next step"], lines
    )


def block(record: Mapping[str, Any]) -> str:
    """What `jaxssl/README.md` shows of the file of --json, and the command that makes it."""
    found = {name: [Trial(**t) for t in trials] for name, trials in record["faults"].items()}
    notes = [
        f"- {fault}: {one.note}" for fault, trials in found.items() for one in trials if one.note
    ]
    made = f"`python -m jaxssl.bench.faults --seed={record['seed']} --steps={record['steps']}`"
    return "\n\n".join(filter(None, (table(found), "\n".join(notes), f"{made}, with `--times`.")))


def meaning(fault: str) -> str:
    """What survived means, for the table."""
    does = soak if fault == SOAK else FAULTS[fault]
    return (does.__doc__ or "").strip().splitlines()[0].replace("`", "")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 a fault was not survived, 2 bad input."""
    try:
        asked = parse(argv)
        found = held(asked)
        with tempfile.TemporaryDirectory() as folder, Lab(pathlib.Path(folder)) as lab:
            run(lab, asked, found)
        chosen = {fault: found[fault][: asked.trials(fault)] for fault in asked.faults}
        print(table(chosen))
        for fault, trials in chosen.items():
            for number, one in enumerate(trials, 1):
                if one.note:
                    print(f"\n{fault} {number}: {one.note}")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(one.survived for trials in chosen.values() for one in trials) else 1


def run(lab: Lab, asked: Settings, found: dict[str, list[Trial]]) -> None:
    """Makes the trials that `found` lacks, and adds them to it."""
    left = [
        (fault, number)
        for fault in asked.faults
        for number in range(len(found.setdefault(fault, [])), asked.trials(fault))
    ]
    with Pieces(len(left)) as pieces:
        for fault, number in left:
            pieces.begin(f"{fault} {number + 1}/{asked.trials(fault)}")
            one = trial(lab, fault, number, asked)
            found[fault].append(one)
            if asked.json:
                written = {name: [t._asdict() for t in ts] for name, ts in found.items() if ts}
                write_json(asked.json, {**_kept(asked), "faults": written})


def held(asked: Settings) -> dict[str, list[Trial]]:
    """The trials that the file holds.

    Raises:
      ConfigError: it is no file of trials, or one of another seed or number of steps.
    """
    if not asked.json or not pathlib.Path(asked.json).exists():
        return {}
    rows = read_json(asked.json)
    try:
        found = {name: [Trial(**t) for t in trials] for name, trials in rows["faults"].items()}
        kept = {name: rows[name] for name in _kept(asked)}
    except (TypeError, LookupError, AttributeError):
        raise ConfigError(f"{asked.json}: expected trials that this command wrote") from None
    for name, value in _kept(asked).items():
        if kept[name] != value:
            raise ConfigError(
                f"{asked.json}: has --{name}={kept[name]}, found {value}; name another file"
            )
    return found


def _kept(asked: Settings) -> dict[str, Any]:
    """What trials of one file have in common."""
    return {"seed": asked.seed, "steps": asked.steps}


def parse(argv: Sequence[str] | None = None) -> Settings:
    """What the command line asks for.

    Raises:
      ConfigError: no such flag or fault, or a number that is none.
    """
    parser = cli.Parser(prog="jaxssl.bench.faults", usage=USAGE)
    parser.add_argument("--faults", default="", help=f"names with commas between; or {SOAK}")
    parser.add_argument("--times", default="3", help="how often each is provoked")
    parser.add_argument("--seed", default="0", help="of the moments")
    parser.add_argument("--steps", default="20000", help=f"of {SOAK}")
    parser.add_argument("--json", default="", help="a file for the trials")
    flags, rest = parser.parse(argv)
    if rest:
        raise ConfigError(f"{rest[0]}: unknown argument; usage: {USAGE}")
    for name, least in (("times", 1), ("seed", 0), ("steps", 1)):
        given = getattr(flags, name)
        if not given.isdecimal() or int(given) < least:
            raise ConfigError(f"--{name}: found {given!r}, expected a whole number from {least} up")
    faults = [name.strip() for name in flags.faults.split(",") if name.strip()] or list(FAULTS)
    for name in faults:
        if name not in FAULTS and name != SOAK:
            raise ConfigError(f"--faults: no fault {name!r}{near(name, (*FAULTS, SOAK))}")
    if sys.platform != "linux":
        raise ConfigError(f"--faults: found {sys.platform}, expected Linux")
    return Settings(faults, int(flags.times), int(flags.seed), int(flags.steps), flags.json)
