"""Runs a config: `python -m jaxssl.main --config=experiments/lejepa.py:PRESET --workdir=DIR`.

One of several processes of a run joins the others (see `jaxssl.devices.processes`): by flags, by
the variables that stand for them, or by what SLURM, Open MPI or a TPU cluster have set.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew

from jaxssl.config import command_line as cli
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, Diverged
from jaxssl.devices import processes
from jaxssl.run import train

USAGE = (
    "python -m jaxssl.main --config=FILE[:PRESET] --workdir=DIR "
    "[--coordinator=HOST:PORT --processes=N --process=I | --cluster=tpu|slurm|...] "
    "[--heartbeat=SECONDS] [--join_timeout=SECONDS] [--strict] [--config.any.key=value ...]"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code.

    0 done, or stopped by SIGTERM; 1 not finite or an alarm; 2 bad input, or the other processes
    were not reached; 3 another process of the run died or failed. After 0 by SIGTERM, 3, and any
    kill, the same command goes on from the last checkpoint.
    """
    try:
        flags, overrides = parse(sys.argv[1:] if argv is None else argv)
        how = processes.settings(vars(flags), os.environ)
        config = configs.load(flags.config, overrides)
        with processes.joined(how):
            train.run(config, flags.workdir)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return processes.leave(2)
    except Diverged as error:
        print(f"stopped: {error}", file=sys.stderr)
        return processes.leave(1)
    return 0


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(flags, config overrides) from the command line.

    Raises:
      ConfigError: a flag is missing or unknown.
    """
    parser = cli.Parser(prog="jaxssl.main", usage=USAGE)
    parser.add_argument("--config", help="a config file, and a preset of it after a colon")
    parser.add_argument("--workdir", help="everything the run writes; run again to go on")
    parser.add_argument(
        "--strict", action="store_true", help="stop at a damaged checkpoint, use no older one"
    )
    processes.add_flags(parser)
    flags, overrides = parser.parse(argv)
    for name in ("config", "workdir"):
        if not getattr(flags, name):
            raise ConfigError(f"--{name}: missing; usage: {USAGE}")
    if flags.strict:
        overrides = [*overrides, "--config.checkpoint.strict=true"]
    return flags, overrides


if __name__ == "__main__":
    sys.exit(main())
