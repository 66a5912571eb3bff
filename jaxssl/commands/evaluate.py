"""Evaluations of a run's encoder, each beside random init and raw input.

    python -m jaxssl.commands.evaluate --workdir=DIR [--checkpoint=STEP] [--stage=NAME]
                              [--config.evals.EVALUATOR.FIELD=VALUE ...]

evaluates a checkpoint again, or by other evaluators: one that is named is switched on. Features are
kept in the workdir, so that they are extracted once for all evaluations of a checkpoint; results
are appended to `evaluations.json` there, each with the ids of its protocols.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew

import jax

from jaxssl.config import command_line as cli
from jaxssl.config.errors import ConfigError
from jaxssl.evals.subject import KINDS
from jaxssl.report.progress import Pieces
from jaxssl.report.writers import read_json, write_json
from jaxssl.run import runs
from jaxssl.run.evaluator import Evaluator

USAGE = (
    "python -m jaxssl.commands.evaluate --workdir=DIR [--checkpoint=STEP] [--stage=NAME] "
    "[--config.evals.KEY=VALUE ...]"
)
RESULTS = "evaluations.json"


def evaluate(
    workdir: str | pathlib.Path,
    *,
    checkpoint: int | None = None,
    stage: str = "",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, appends what was found to `evaluations.json`, returns it.

    Args:
      workdir, checkpoint, stage, overrides: as of `jaxssl.run.runs.load`.

    Returns:
      {"step", "seed", "seeds", "protocols": {evaluator: id}, "evals": {metric: {subject: value}}};
      an evaluation of the same step by the same protocols replaces the older one in the file.

    Raises:
      ConfigError: as `jaxssl.run.runs.load` and `Evaluator`; or the data has no labels.
    """
    run = runs.load(workdir, checkpoint=checkpoint, stage=stage, overrides=overrides)
    evaluator = Evaluator(run.program, run.folder, keep_features=True)
    if not evaluator.active:
        raise ConfigError(f"data.source: {run.program.source.name} has no labels to evaluate with")
    with Pieces(evaluator.pieces, enabled=jax.process_index() == 0) as pieces:
        results = evaluator(run.state, pieces.begin)
    seed = run.program.config.train.seed
    found: dict[str, Any] = {"step": int(run.state.step), "seed": seed, "seeds": 1}
    found |= {"protocols": evaluator.protocols(), "evals": results}
    if jax.process_index() == 0:
        path = run.folder / RESULTS
        kept = read_json(path) if path.exists() else []
        same = lambda old: all(old[key] == found[key] for key in ("step", "protocols"))
        write_json(path, [old for old in kept if not same(old)] + [found])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    try:
        parser = cli.Parser(prog="jaxssl.commands.evaluate", usage=USAGE)
        parser.add_argument("--workdir", required=True)
        parser.add_argument("--checkpoint", type=int)
        parser.add_argument("--stage", default="")
        flags, overrides = parser.parse(argv)
        found = evaluate(
            flags.workdir, checkpoint=flags.checkpoint, stage=flags.stage, overrides=overrides
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if jax.process_index() == 0:
        print(table(found))
    return 0


def table(found: Mapping[str, Any]) -> str:
    """What `evaluate` found, as a table for people."""
    rows = [("evaluation", *(kind.replace("_", " ") for kind in KINDS), "protocol")]
    for name, values in found["evals"].items():
        numbers = ["" if values.get(kind) is None else f"{values[kind]:.4f}" for kind in KINDS]
        rows.append((name, *numbers, found["protocols"].get(name.partition("/")[0], "")))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, f"step {found['step']}, one seed (train.seed {found['seed']})"])


if __name__ == "__main__":
    sys.exit(main())
