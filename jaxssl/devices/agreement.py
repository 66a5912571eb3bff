"""What the processes of one run tell each other, so that all of them decide alike."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxssl.config.errors import ConfigError

T = TypeVar("T")


def on_first(work: Callable[[], T]) -> T:
    """What `work` returns on process 0, told to all; the others wait and do not call it.

    Args:
      work: its result has a JSON form.

    Raises:
      ConfigError: `work` raised one; so it does on every process.
      RuntimeError: on the other processes, where `work` raised anything else.

    >>> on_first(lambda: [1, "a"])
    [1, 'a']
    """
    if jax.process_count() == 1:
        return work()
    said: dict[str, Any] = {}
    error: Exception | None = None
    if jax.process_index() == 0:
        try:
            said = {"value": work()}
        except Exception as caught:  # the others wait for an answer, whatever it is
            error = caught
            said = {"error": str(caught), "bad_input": isinstance(caught, ConfigError)}
    answer = json.loads(_told(json.dumps(said), source=0))
    if error is not None:
        raise error
    if "error" in answer:
        kind = ConfigError if answer["bad_input"] else RuntimeError
        raise kind(answer["error"])
    value: T = answer["value"]
    return value


def first_text(text: str) -> str:
    """The text of the first process that has one, the same on all; "" where none has.

    >>> first_text("")
    ''
    """
    if jax.process_count() == 1:
        return text
    have = np.asarray(multihost_utils.process_allgather(np.asarray(bool(text))))
    return _told(text, source=int(have.argmax())) if have.any() else ""


def _told(text: str, source: int) -> str:
    """The text of the process `source`, on all."""
    mine = jax.process_index() == source
    data = np.frombuffer(text.encode() if mine else b"", np.uint8)

    def tell(x: Any) -> np.ndarray:
        return np.asarray(multihost_utils.broadcast_one_to_all(x, is_source=mine))

    length = int(tell(np.int32(data.size)))
    return bytes(tell(data if mine else np.zeros(length, np.uint8))).decode()
