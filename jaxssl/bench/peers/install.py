"""`python -m jaxssl.bench.peers.install NAME [PIP ARGUMENTS]`: the environment of a peer.

It lies in ~/.cache/jaxssl/devices/heartbeat/NAME (or under $XDG_CACHE_HOME), beside nothing of
ours. What follows the name goes to pip: for a torch without CUDA, `--index-url` of the CPU wheels.
"""

import subprocess
import sys
import venv
from collections.abc import Sequence

from jaxssl.bench.peers import PACKAGES, check_peer, environment, interpreter
from jaxssl.config.errors import ConfigError, near

DONE = "jaxssl-ready"  # a file in an environment whose packages are all there


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 installed or already there, 1 pip failed, 2 bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments:
            raise ConfigError(f"found no peer, expected a name{near('', PACKAGES)}")
        name = check_peer(arguments[0])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if ready(name):
        print(f"{name}: already in {environment(name)}")
        return 0
    print(f"{name}: installing {' '.join(PACKAGES[name])} in {environment(name)}", flush=True)
    venv.create(environment(name), with_pip=True, clear=True)
    pip = [str(interpreter(name)), "-m", "pip", "install", *arguments[1:], *PACKAGES[name]]
    if code := subprocess.run(pip, check=False).returncode:
        print(f"error: {name}: pip ended with code {code}; {' '.join(pip)}", file=sys.stderr)
        return 1
    (environment(name) / DONE).touch()
    return 0


def ready(name: str) -> bool:
    """Whether the environment of the peer is complete."""
    return (environment(name) / DONE).is_file()


if __name__ == "__main__":
    sys.exit(main())
