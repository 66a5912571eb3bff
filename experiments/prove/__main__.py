"""`python -m experiments.prove`: see the package."""

import pathlib
import sys
from collections.abc import Sequence

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew

from experiments.prove import cells, render
from jaxssl.config import command_line as cli
from jaxssl.config.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[2]
USAGE = (
    "python -m experiments.prove NAME[:PRESET] ... [--seeds=N|0,2] [--only=ARM,ARM] "
    "[--controls=NAME,NAME] [--minutes=N] [--workdir=DIR] | --write | --check"
)


def main(argv: Sequence[str] | None = None, root: pathlib.Path = ROOT) -> int:
    """The exit code.

    0 done, out of time, or stopped by SIGTERM; 1 a run diverged, or experiments/README.md is not
    current; 2 bad input.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parser = cli.Parser(prog="experiments.prove", usage=USAGE)
    parser.add_argument("names", nargs="*", help="experiments, or all")
    parser.add_argument("--seeds", default="", help="how many, or which, with commas between")
    parser.add_argument("--only", default="", help="arms to run: method, or names of controls")
    parser.add_argument("--controls", default="", help="to prove against; default all")
    parser.add_argument("--minutes", default="", help="after which no cell starts")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs") / "proofs")
    parser.add_argument("--write", action="store_true", help="write experiments/README.md")
    parser.add_argument("--check", action="store_true", help="fail where it is not current")
    try:
        flags, overrides = parser.parse(words)
        if overrides:
            raise ConfigError(f"{overrides[0]}: a change belongs to CONTROLS; usage: {USAGE}")
        if flags.write or flags.check:
            return render.main(root, check=flags.check)
        if not flags.names:
            raise ConfigError(f"no experiment named; usage: {USAGE}")
        minutes = _minutes(flags.minutes)
        split = lambda text: [word.strip() for word in text.split(",") if word.strip()]
        jobs = cells.planned(
            root, flags.names, _seeds(flags.seeds), split(flags.only), split(flags.controls)
        )
        say = lambda line: print(line, flush=True)
        return cells.Proofs(root, flags.workdir, minutes, say).run(jobs)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _seeds(text: str) -> list[int] | None:
    """Seeds of `--seeds`: N is 0 ... N - 1, and numbers with commas between are themselves.

    >>> _seeds("2"), _seeds("0,2"), _seeds("")
    ([0, 1], [0, 2], None)
    """
    if not text:
        return None
    found = [int(w) if w.isdecimal() else -1 for w in text.rstrip(",").split(",")]
    if "," not in text:
        found = list(range(found[0])) or [-1]
    if min(found) < 0 or len(set(found)) < len(found):
        raise ConfigError(f"--seeds: found {text!r}, expected how many, or which, as 0,2")
    return found


def _minutes(text: str) -> float | None:
    """The budget of `--minutes`.

    >>> _minutes("1.5"), _minutes("")
    (1.5, None)
    """
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ConfigError(f"--minutes: found {text!r}, expected a number, 0 or more")
    return found


if __name__ == "__main__":
    sys.exit(main())
