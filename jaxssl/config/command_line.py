"""What every command of the package does with its arguments."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from jaxssl.config.errors import ConfigError, near


class Parser(argparse.ArgumentParser):
    """Raises one line where argparse would print its usage and exit; takes config overrides.

    Args:
      prog: the command.
      usage: shown with every error.
    """

    def __init__(self, prog: str, usage: str, **more: Any):
        super().__init__(prog=prog, usage=usage, allow_abbrev=False, **more)

    def parse(self, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
        """(flags, the `--config.key=value` overrides); None reads the command line.

        Raises:
          ConfigError: a flag is missing, unknown or of another type.
        """
        flags, overrides = self.parse_known_args(sys.argv[1:] if argv is None else list(argv))
        known = [name for action in self._actions for name in action.option_strings]
        for text in overrides:
            if not text.startswith("--config."):
                wrong = near(text.partition("=")[0], known)
                raise ConfigError(f"{text}: unknown argument{wrong}; usage: {self.usage}")
        return flags, overrides

    def error(self, message: str) -> NoReturn:
        """Called by argparse.

        Raises:
          ConfigError: always.
        """
        raise ConfigError(f"{message}; usage: {self.usage}")
