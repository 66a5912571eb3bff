"""The peer's end of the pipe: a JSON object a line in, one a line out.

{"make": description} is answered by {"parameters", "facts", "seconds"}; {"run": k}, k steps, by
{"seconds", "cpu_seconds", "loss", "peak_bytes", "facts"}. Where something is missing the answer is
{"unsupported": reason}, and the process ends. The pipe's end ends it too.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any, TextIO

from workers import Unsupported

# peer -> (module of this package, what its `make` is told beside the description)
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch": ("torch_step", {}),
    "torch_compile": ("torch_step", {"compiled": True}),
    "lightly": ("lightly_step", {}),
    "stable_pretraining": ("stable_pretraining_step", {}),
}


def serve(name: str, requests: Iterable[str], replies: TextIO) -> None:
    """Answers requests until there are no more."""
    step = None
    for line in requests:
        request = json.loads(line)
        if "make" in request:
            began = time.perf_counter()
            step = _make(name, request["make"])
            seconds = time.perf_counter() - began
            reply = {"parameters": step.parameters, "facts": step.facts, "seconds": seconds}
        else:
            assert step is not None, "nothing is made yet"
            before = _cpu_seconds()
            seconds, loss = step.run(request["run"])
            reply = {"seconds": seconds, "cpu_seconds": _cpu_seconds() - before, "loss": loss}
            reply |= {"peak_bytes": getattr(step, "peak_bytes", 0), "facts": step.facts}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _cpu_seconds() -> float:
    """What all threads of this process took so far, and its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def _make(name: str, description: dict[str, Any]) -> Any:
    module, options = PEERS[name]
    try:
        return importlib.import_module(f"workers.{module}").make(description, **options)
    except ImportError as error:
        raise Unsupported(f"{sys.executable}: {error}") from error


def told(error: BaseException) -> str:
    """One line: kind, message, and the place that raised it, of the first cause that is known."""
    line = f"{type(error).__name__}: {error}".splitlines()[0].strip().rstrip(":")
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    return (
        f"{line} ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else line
    )


def main() -> int:
    """The exit code: 0 after the pipe's end or a skip, 1 after an error."""
    # Libraries print to standard output; the pipe is for replies alone.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        serve(sys.argv[1], sys.stdin, replies)
    except Unsupported as error:
        print(json.dumps({"unsupported": str(error)}), file=replies, flush=True)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": told(error)}), file=replies, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
