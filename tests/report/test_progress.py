"""What a run prints, in a terminal and without one."""

import io
import re

import pytest

from jaxssl.report import human
from jaxssl.report.progress import Progress, screen


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def plain(text):
    """`text` has no control characters but newlines."""
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_plain_lines_first_every_ten_seconds_last():
    out, clock = io.StringIO(), Clock()
    with Progress(100, stream=out, clock=clock) as progress:
        for step in range(1, 101):
            clock.now = 5.0 + step * 0.25
            progress.update(
                step, {"train/loss": 1 / step, "train/term": 2.0}, examples_per_second=512.0
            )
    lines = out.getvalue().splitlines()
    assert [int(re.match(r"step (\d+)/100", line)[1]) for line in lines] == [1, 41, 81, 100]
    # Compilation (5 s before the first update) is elapsed time but no measure of a step.
    assert lines[1] == (
        "step 41/100 (41%) | 512 examples/s | elapsed 15.2 s | left 14.8 s | loss 0.02439  term 2"
    )
    assert "left 0 ms" in lines[-1]
    assert plain(out.getvalue())


def test_a_run_that_ends_early_prints_where():
    out = io.StringIO()
    with (
        pytest.raises(KeyboardInterrupt),
        Progress(100, start=10, stream=out, clock=Clock()) as progress,
    ):
        progress.update(11, {"train/loss": 1.0})
        progress.update(12, {"train/loss": 0.5})
        raise KeyboardInterrupt
    assert [line.split(" (")[0] for line in out.getvalue().splitlines()] == [
        "step 11/100",
        "step 12/100",
    ]


def test_evals_and_messages_are_lines():
    out = io.StringIO()
    with Progress(10, stream=out, clock=Clock()) as progress:
        progress.evals(5, {"eval/knn/accuracy": 0.9, "eval/linear/accuracy": float("nan")})
        progress.message("saved [checkpoint] 5 " + "x" * 120)
    assert out.getvalue() == (
        "step 5/10 | eval knn/accuracy 0.9  linear/accuracy nan\n"
        f"saved [checkpoint] 5 {'x' * 120}\n"
    )


def test_terminal_redraws_one_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    with Progress(4, stream=out) as progress:
        for step in range(1, 5):
            progress.update(step, {"train/loss": 0.5}, examples_per_second=2048.0)
        progress.evals(4, {"eval/knn/accuracy": 0.75})
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "step 4/4 (100%) | 2,048 examples/s" in shown
    assert "loss 0.5" in shown and "eval at step 4: knn/accuracy 0.75" in shown
    assert out.getvalue().count("\n") < 10


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_silent_on_other_processes(stream):
    out = stream()
    with Progress(2, enabled=False, stream=out) as progress:
        progress.update(2, {"train/loss": 0.5})
        progress.evals(2, {"eval/a": 1.0})
        progress.message("hello")
    screen([("data", [("samples", 1)])], stream=out, enabled=False)
    assert out.getvalue() == ""


def test_screen_shows_sections_in_order():
    out = io.StringIO()
    screen(
        [
            ("model", [("encoder", human.count(21_665_664)), ("bias", False)]),
            ("data", [("samples", 50_000), ("path", "[x]/" + "y" * 200)]),
        ],
        title="a run",
        stream=out,
    )
    text = out.getvalue()
    assert plain(text)
    assert max(map(len, text.splitlines())) == 100
    words = ["a run", "model", "encoder", "21.7 M", "bias", "False", "data", "samples", "50,000"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert text.count("y") == 200 and "[x]/" in text
    assert text.count("data") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (human.count(999), "999"),
        (human.count(999_600), "1 M"),
        (human.count(1.5e9), "1.5 B"),
        (human.flops(999.7e9), "1 TFLOP"),
        (human.flops(0), "0 FLOP"),
        (human.size(1023), "1023 B"),
        (human.size(80 * 2**30), "80 GiB"),
        (human.duration(59.96), "1 min 00 s"),
        (human.duration(3599.6), "1 h 00 min"),
        (human.duration(90_000), "1 d 01 h"),
        (human.duration(float("inf")), "?"),
        (human.value(1e-7), "1e-07"),
        (human.value(-3.0), "-3"),
    ],
)
def test_human_numbers(text, expected):
    assert text == expected
