"""One run of a comparison, in a process of its own: `python -m experiments.equal_compute.one ...`.

In a process of its own, so that its failure is its own and its memory is returned. Beside the
workdir, `DIR.json` says what the run is made of.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew

from experiments.equal_compute import budget, tables
from experiments.equal_compute.tables import Table
from jaxssl.config import command_line as cli
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, Diverged
from jaxssl.devices import host
from jaxssl.report.writers import write_json
from jaxssl.run import stages, train


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, as that of `jaxssl.main`."""
    parser = cli.Parser(
        prog="experiments.equal_compute.one",
        usage="python -m experiments.equal_compute.one --config=...",
    )
    parser.add_argument("--config", required=True, help="the config file, without a preset")
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--table", required=True, help="that the run is for")
    parser.add_argument("--budget", required=True, type=float, help="in the table's unit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", default="", help="its name in the record, if not this one's")
    try:
        flags, overrides = parser.parse(argv)
        if overrides:
            raise ConfigError(f"{overrides[0]}: a comparison changes no field of an experiment")
        table = tables.find(flags.table)
        run(
            flags.config,
            flags.workdir,
            table,
            flags.budget,
            flags.seed,
            machine=flags.machine,
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    return 0


def run(
    file: str,
    workdir: pathlib.Path,
    table: Table,
    spend: float,
    seed: int,
    *,
    machine: str = "",
) -> None:
    """Counts what a step costs, writes down what the run is made of, and runs it.

    Raises:
      ConfigError, Diverged: as `jaxssl.run.train.run`.
    """
    plain = tables.load(file)
    found = budget.costs(plain, budget.full_view(tables.PRESET), table.unit)
    lengths = budget.steps(spend, found)
    config = configs.merged(plain, {**budget.changes(plain, found, lengths), "train.seed": seed})
    facts: dict[str, Any] = {
        "experiment": plain.name,
        "seed": seed,
        "table": table.name,
        "budget": spend,
        "cost_of_step": [cost.amount for cost in found],
        "steps": lengths,
        "labels": any(cost.labels for cost in found),
        "own_encoder": not table.shares(plain),
        "own_data": table.has_own_data(plain),
        "machine": machine or host.machine(),
        "recipe": tables.recipe(plain),
        "stages": {
            stage.folder.name if stage.name else "": configs.to_dict(stage.config)
            for stage in stages.resolve(config, workdir)
        },
    }
    workdir.parent.mkdir(parents=True, exist_ok=True)
    write_json(facts_path(workdir), facts)
    train.run(config, workdir)


def facts_path(workdir: pathlib.Path) -> pathlib.Path:
    """Where it is written what the run in `workdir` is made of."""
    return workdir.with_name(f"{workdir.name}.json")


if __name__ == "__main__":
    sys.exit(main())
