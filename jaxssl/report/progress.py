"""What a run prints: the start screen, then a progress bar, or plain lines without a terminal."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jaxssl.report import human

WIDTH = 100

Sections = Iterable[tuple[str, Sequence[tuple[str, Any]]]]


class Progress:
    """A bar with rate, time left, loss terms and evaluations; plain lines without a terminal.

    On a terminal it redraws in place. Elsewhere it prints lines without control characters: the
    first and the last update, one about every `every` seconds between, and each evaluation.

    Args:
      total: the step at which the run ends.
      start: the step it starts from (not 0 when resumed).
      enabled: False on every process but one: then nothing is printed.
      stream: where to; standard error when None.
      every: seconds between plain lines.
      clock: seconds from any origin.

    >>> import io
    >>> out = io.StringIO()
    >>> with Progress(2, stream=out, clock=lambda: 0.0) as progress:
    ...     progress.update(1, {"train/loss": 0.5}, examples_per_second=100)
    ...     progress.evals(2, {"eval/knn/accuracy": 0.9})
    >>> print(out.getvalue(), end="")
    step 1/2 (50%) | 100 examples/s | elapsed 0 ms | left ? | loss 0.5
    step 2/2 | eval knn/accuracy 0.9
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        *,
        enabled: bool = True,
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._step = total, start
        self._every, self._clock = every, clock
        self._enabled = enabled
        self._console = _console(stream or sys.stderr)
        self._live: Live | None = None
        self._began = clock()
        self._first: tuple[int, float] | None = None  # the first update's step and time
        self._printed: tuple[int, float] | None = None  # the last plain line's
        self._rate: float | None = None
        self._terms: dict[str, float] = {}
        self._evals: dict[str, float] = {}
        self._evals_step = start

    def __enter__(self) -> Self:
        self._began = self._clock()
        if self._enabled and self._console.is_terminal:
            self._live = Live(get_renderable=self._bar, console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._first and self._printed and self._printed[0] != self._step:
            self._print(self._line())

    def update(
        self,
        step: int,
        metrics: Mapping[str, float] | None = None,
        *,
        examples_per_second: float | None = None,
    ) -> None:
        """Says that `step` steps are done; a metric's first word ("train/") is not shown."""
        if not self._enabled:
            return
        now = self._clock()
        self._step = step
        self._rate = examples_per_second if examples_per_second is not None else self._rate
        if metrics:
            self._terms = {_short(name): float(x) for name, x in metrics.items()}
        # Time left counts from the first update, so that compilation is not taken for a slow step.
        self._first = self._first or (step, now)
        if self._live is None and (
            self._printed is None
            or now - self._printed[1] >= self._every
            or (step >= self._total and self._printed[0] != step)
        ):
            self._printed = (step, now)
            self._print(self._line())

    def evals(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the evaluations made at `step`."""
        if not self._enabled:
            return
        self._evals = {_short(name): float(x) for name, x in values.items()}
        self._evals_step = step
        if self._live is None:
            self._print(f"step {step:,}/{self._total:,} | eval {_pairs(self._evals)}")

    def message(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._enabled:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        if self._step >= self._total:
            return human.duration(0)
        if self._first is None or self._step == self._first[0]:
            return "?"
        per_step = (self._clock() - self._first[1]) / (self._step - self._first[0])
        return human.duration(per_step * (self._total - self._step))

    def _facts(self) -> str:
        facts = [f"step {self._step:,}/{self._total:,} ({self._step / max(self._total, 1):.0%})"]
        if self._rate is not None:
            facts.append(f"{human.value(self._rate)} examples/s")
        facts.append(f"elapsed {human.duration(self._clock() - self._began)}")
        facts.append(f"left {self._left()}")
        return " | ".join(facts)

    def _line(self) -> str:
        return self._facts() + (f" | {_pairs(self._terms)}" if self._terms else "")

    def _bar(self) -> Table:
        rows = Table.grid()
        width = min(self._console.width, 60)
        rows.add_row(ProgressBar(total=self._total, completed=self._step, width=width))
        rows.add_row(Text(self._facts()))
        if self._terms:
            rows.add_row(Text(_pairs(self._terms), style="cyan"))
        if self._evals:
            shown = f"eval at step {self._evals_step:,}: {_pairs(self._evals)}"
            rows.add_row(Text(shown, style="green"))
        return rows


class Pieces:
    """The progress of work in a known number of unlike pieces: a bar, or a line for each.

    Args:
      total: how many pieces.
      enabled: False on every process but one: then nothing is printed.
      console: where; standard error unless given.

    >>> import io
    >>> out = io.StringIO()
    >>> with Pieces(2, console=_console(out)) as pieces:
    ...     pieces.begin("random init: knn")
    ...     pieces.begin("trained: knn")
    >>> print(out.getvalue(), end="")
    [1/2] random init: knn | left ?
    [2/2] trained: knn | left 0 ms
    """

    def __init__(self, total: int, *, enabled: bool = True, console: Console | None = None):
        self._total, self._enabled, self._begun = total, enabled, 0
        self._console = console or _console(sys.stderr)
        self._began = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
        )
        shown = enabled and self._console.is_terminal
        self._bar = Bar(*columns, console=self._console, disable=not shown)
        self._task = self._bar.add_task("", total=total, left="?")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, name: str) -> None:
        """Says that the next piece begins; those before it are done."""
        done, self._begun = self._begun, self._begun + 1
        left = "?"
        if done:
            each = (time.monotonic() - self._began) / done
            left = human.duration(each * max(0, self._total - self._begun))
        self._bar.update(self._task, description=name, completed=done, left=left)
        if self._enabled and not self._console.is_terminal:
            line = f"[{self._begun}/{self._total}] {name} | left {left}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def screen(
    sections: Sections,
    *,
    title: str = "",
    stream: TextIO | None = None,
    enabled: bool = True,
) -> None:
    """Prints the start screen: for each section its title and its rows of key and value.

    Whole numbers get thousands separators; other values print as they are, so format them with
    `jaxssl.report.human`. Without a terminal: 100 columns and no control characters.
    """
    if not enabled:
        return
    console = _console(stream or sys.stdout)
    table = Table(
        title=title or None,
        title_style="bold",
        title_justify="left",
        box=box.ROUNDED,
        show_header=False,
        width=min(console.width, WIDTH),
    )
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for name, rows in sections:
        for i, (key, value) in enumerate(rows):
            whole = isinstance(value, int) and not isinstance(value, bool)
            table.add_row(
                Text(name if i == 0 else ""),
                Text(str(key)),
                Text(f"{value:,}" if whole else str(value)),
                end_section=i == len(rows) - 1,
            )
    console.print(table)


def _console(stream: TextIO) -> Console:
    """A rich console whose every property follows from whether `stream` is a terminal."""
    if stream.isatty():
        return Console(file=stream, force_jupyter=False)
    return Console(
        file=stream, width=WIDTH, force_terminal=False, force_jupyter=False, color_system=None
    )


def _short(name: str) -> str:
    return name.split("/", 1)[1] if "/" in name else name


def _pairs(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {human.value(x)}" for name, x in values.items())
