"""Files that a run leaves behind: `metrics.jsonl`, TensorBoard events and atomic JSON.

JSON has no NaN and no infinity. Everything written here holds them as the strings "nan", "inf"
and "-inf", and `read_metrics` and `read_json` turn those back into floats.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from jaxssl.config.errors import ConfigError

METRICS = "metrics.jsonl"
STATUSES = ("running", "finished", "stopped", "failed")
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class MetricsWriter:
    """Metrics of a run, a JSON object a line, and the same as TensorBoard events.

    Each line has "step" first and then names such as "train/loss" or "eval/knn/accuracy". Floats
    are written in the fewest digits from which the same float32 is read back. Every line is handed
    to the system when it is written, so a killed process loses none. A name may come twice for one
    step (an evaluation that a resumed run repeats): the later line holds.

    Args:
      workdir: folder of the run, made if absent.
      resume_step: the step that the run goes on from; lines after it are dropped, as is a last
        line that was cut short. None starts with an empty file.
      enabled: False on every process but one: then nothing is read or written.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with MetricsWriter(folder) as writer:
    ...     writer.write(1, {"train/loss": np.float32(0.1)})
    >>> read_metrics(folder + "/metrics.jsonl")
    [{'step': 1, 'train/loss': 0.1}]
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        resume_step: int | None = None,
        enabled: bool = True,
    ) -> None:
        self._folder = pathlib.Path(workdir)
        self._file: Any = None
        self._events: Any = None
        if enabled:
            self._open(resume_step)

    def _open(self, resume_step: int | None) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / METRICS
        kept = []
        if resume_step is not None and path.exists():
            kept = [line for step, line in _lines(path) if step <= resume_step]
        write_text(path, "".join(line + "\n" for line in kept))
        # Line buffering: one write to the system for each line.
        self._file = path.open("a", encoding="utf-8", buffering=1)
        # Here, not above: reading metrics or running with enabled=False needs no TensorBoard.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(
            str(self._folder / "tensorboard"),
            purge_step=0 if resume_step is None else resume_step + 1,
            flush_secs=30,
        )

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Writes the scalars of one step; they may be Python, numpy or fetched jax scalars."""
        if self._file is None:
            return
        row = {name: _scalar(name, x) for name, x in metrics.items()}
        self._file.write(json.dumps({"step": int(step)} | row, allow_nan=False) + "\n")
        for name, x in row.items():
            # TensorBoard draws no point for a non-finite value, and its writer complains of each.
            if not isinstance(x, str):
                self._events.add_scalar(name, x, int(step))

    def rewind(self, step: int) -> None:
        """Drops what was written after `step`, and goes on from there."""
        if self._file is not None:
            self.close()
            self._open(step)

    def flush(self) -> None:
        """Puts everything written so far on disk."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._events.flush()

    def close(self) -> None:
        """Flushes and closes; closing twice is fine."""
        if self._file is None:
            return
        self.flush()
        self._file.close()
        self._events.close()
        self._file = self._events = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, in order; a last line that was cut short is left out.

    Raises:
      ConfigError: the file is missing, or a line before the last is not a metrics line.
    """
    return [
        {name: _decode(x) for name, x in json.loads(line).items()}
        for _, line in _lines(pathlib.Path(path))
    ]


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    # The rename itself is on disk only when the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: pathlib.Path, text: str) -> None:
    """The same for text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never a part.

    Takes config dicts, tuples, paths, numpy and jax arrays, and dtypes (by name).

    Raises:
      TypeError: a leaf has no JSON form; the message names its place. The old file stays.
    """
    write_text(pathlib.Path(path), json.dumps(_plain(obj, ""), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a file that `write_json` wrote.

    Raises:
      ConfigError: the file is missing or is not JSON.
    """
    text = _text(pathlib.Path(path))
    try:
        return _decode(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: found text that is not JSON at line {error.lineno}, "
            "expected a file written by a run"
        ) from None


def write_summary(
    workdir: str | os.PathLike[str],
    *,
    status: str,
    step: int,
    seconds: float,
    examples_per_second: float | None = None,
    evals: Mapping[str, Mapping[str, Any]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Writes `summary.json` atomically and returns what it holds.

    Args:
      workdir: folder of the run.
      status: "running", "finished", "stopped" (asked to) or "failed".
      step: the last step done.
      seconds: wall-clock time of the training.
      examples_per_second: samples a second over the run, None before any.
      evals: name -> {"trained": x, "random_init": x, "raw_input": x}; None for a control that does
        not exist. An entry may add "better": "lower" where less is better.
      **more: further fields, e.g. `reason` of a failure.

    Raises:
      ValueError: `status` is none of the four.
    """
    if status not in STATUSES:
        raise ValueError(f"status: found {status!r}, expected one of {', '.join(STATUSES)}")
    summary: dict[str, Any] = {
        "status": status,
        "step": int(step),
        "seconds": float(seconds),
        "examples_per_second": None if examples_per_second is None else float(examples_per_second),
        "evals": {name: dict(values) for name, values in (evals or {}).items()},
        **more,
    }
    write_json(pathlib.Path(workdir) / "summary.json", summary)
    return summary


def _scalar(name: str, x: Any) -> int | float | str:
    """A number as it stands in the file: an int, a float of float32's digits, or "nan" and such."""
    if isinstance(x, bool | int | np.integer | np.bool_):
        return int(x)
    array = np.asarray(x)
    if array.size != 1 or array.dtype == object or array.dtype.kind in "USc":
        raise ValueError(
            f"metric {name!r}: found shape {array.shape}, {array.dtype}; expected a scalar"
        )
    if array.dtype.kind in "iub":
        return int(array.item())
    number = float(array.item())
    if not math.isfinite(number):
        return _spell(number)
    with np.errstate(over="ignore", under="ignore"):
        short = float(str(np.float32(number)))
    # Beyond float32's range (only a Python float can be): keep all of it.
    return short if math.isfinite(short) and (short or not number) else number


def _spell(x: float) -> str:
    return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"


def _decode(x: Any) -> Any:
    """Turns the strings for non-finite numbers back into floats, at any depth."""
    if isinstance(x, str):
        return _NON_FINITE.get(x, x)
    if isinstance(x, dict):
        return {key: _decode(value) for key, value in x.items()}
    if isinstance(x, list):
        return [_decode(value) for value in x]
    return x


def _plain(x: Any, place: str) -> Any:
    """`x` as JSON holds it."""
    if x is None or isinstance(x, bool | int | str):
        return x
    if isinstance(x, float):
        return float(x) if math.isfinite(x) else _spell(x)
    if isinstance(x, list | tuple):
        return [_plain(value, f"{place}[{i}]") for i, value in enumerate(x)]
    if isinstance(x, os.PathLike):
        return os.fspath(x)
    # A class may be a dtype (jnp.bfloat16); its methods say nothing about its being a container.
    if not isinstance(x, type):
        if hasattr(x, "items"):
            return {str(key): _plain(value, f"{place}.{key}") for key, value in x.items()}
        if hasattr(x, "tolist"):
            return _plain(x.tolist(), place)
    try:
        dtype = np.dtype(x)
    except TypeError:
        dtype = np.dtype("O")
    # numpy takes any class for the dtype "object".
    if dtype.kind == "O":
        raise TypeError(f"{place.lstrip('.') or 'value'}: found {x!r}, which has no JSON form")
    return dtype.name


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{path}: no such file, expected one written by a run") from None


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """(step, line) of each whole line."""
    lines = _text(path).split("\n")
    found = []
    # What follows the last newline is empty, or a line that was cut short.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append((int(json.loads(line)["step"]), line))
        except (json.JSONDecodeError, KeyError, TypeError):
            if number == len(lines) - 1:
                break
            raise ConfigError(
                f'{path}:{number}: found a line that is no metrics line, expected {{"step": ...}}'
            ) from None
    return found
