"""Runs a config: `python -m jaxssl.main --config=experiments/lejepa.py:PRESET --workdir=DIR`."""

import os
import sys
from collections.abc import Sequence

import jax

from jaxssl import cli, train
from jaxssl import config as configs
from jaxssl.errors import ConfigError

USAGE = "python -m jaxssl.main --config=FILE[:PRESET] --workdir=DIR [--config.any.key=value ...]"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done or stopped by SIGTERM, 1 not finite or an alarm, 2 bad input."""
    try:
        spec, workdir, overrides = parse(sys.argv[1:] if argv is None else argv)
        config = configs.load(spec, overrides)
        join_processes()
        train.run(config, workdir)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except train.Diverged as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str]) -> tuple[str, str, list[str]]:
    """(config spec, workdir, overrides) from the command line.

    Raises:
      ConfigError: a flag is missing or unknown.
    """
    parser = cli.Parser(prog="jaxssl.main", usage=USAGE)
    parser.add_argument("--config", help="a config file, and a preset of it after a colon")
    parser.add_argument("--workdir", help="everything the run writes; run again to go on")
    flags, overrides = parser.parse(argv)
    for name in ("config", "workdir"):
        if not getattr(flags, name):
            raise ConfigError(f"--{name}: missing; usage: {USAGE}")
    return flags.config, flags.workdir, overrides


def join_processes() -> None:
    """Joins the other processes of the run, where JAX_COORDINATOR_ADDRESS says that there are any.

    JAX_NUM_PROCESSES and JAX_PROCESS_ID say how many there are, and which this is.
    """
    if "JAX_COORDINATOR_ADDRESS" in os.environ and not jax.distributed.is_initialized():
        count, index = (os.environ.get(f"JAX_{n}") for n in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )


if __name__ == "__main__":
    sys.exit(main())
