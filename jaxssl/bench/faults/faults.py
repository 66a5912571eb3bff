"""The faults: each provokes one failure in a run of a `Lab`, at moments that `draw` says.

Each returns the seconds from the second start to its first step (None where there is none), raises
`Lost` where the fault was not survived and `Missed` where the run was over before it came. The
docstring says what survived means.
"""

import pathlib
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from jaxssl.bench.faults.config import SAVED_EVERY, STEPS
from jaxssl.bench.faults.lab import Child, Lab, Lost, Missed, ended, reached, rows, same
from jaxssl.devices.heartbeat import CODE
from jaxssl.report.writers import read_json
from jaxssl.run import manifest

Fault = Callable[[Lab, random.Random], float | None]
Spoil = Callable[[pathlib.Path, random.Random], None]

STOPS_WITHIN = 30.0  # seconds from SIGTERM to the end
NOTICES_WITHIN = 120.0  # seconds from the end of one process to that of the other
FILE_LIMIT = 300_000  # bytes: less than a checkpoint's arrays, more than a run's metrics
IMAGES = {"train": 96, "test": 64}


def at_step(draw: random.Random, child: Child, workdir: pathlib.Path, first: int = 1) -> None:
    """Waits for a drawn step from `first` on; not the last ones, which are soon over.

    Raises:
      Missed: the run ended before.
    """
    step = draw.randint(first, STEPS - SAVED_EVERY)
    child.provoked(lambda: reached(workdir) >= step)


def saved(workdir: pathlib.Path) -> list[int]:
    """The steps of the checkpoints, ascending."""
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal())


@contextmanager
def in_time(workdir: pathlib.Path) -> Iterator[None]:
    """Where what should follow a fault does not follow, it may have come too late.

    Raises:
      Missed: the run had finished.
    """
    try:
        yield
    except Lost:
        summary = workdir / "summary.json"
        if summary.exists() and read_json(summary)["status"] == "finished":
            raise Missed from None
        raise


# ---------------------------------------------------------------------------- kills


def sigkill(lab: Lab, draw: random.Random) -> float | None:
    """Killed in the start (one in five) or after any step; goes on bit for bit."""
    lab.whole()  # it says how long a start takes
    workdir = lab.workdir()
    child = lab.start(workdir)
    if draw.random() < 0.2:
        time.sleep(draw.uniform(0, lab.started_in))
    else:
        at_step(draw, child, workdir)
    child.kill()
    return lab.goes_on(workdir)


def sigkill_checkpoint(lab: Lab, draw: random.Random) -> float | None:
    """Killed while a checkpoint is half written; goes on bit for bit."""
    workdir = lab.workdir()
    folder = workdir / "checkpoints"
    half: Callable[[], list[pathlib.Path]] = lambda: [*folder.glob("*.orbax-checkpoint-tmp*")]
    child = lab.start(workdir)
    at_step(draw, child, workdir)
    child.provoked(lambda: bool(half()))
    time.sleep(draw.uniform(0, 0.01))
    child.kill()
    if not half():
        raise Missed
    return lab.goes_on(workdir)


def sigkill_pair(lab: Lab, draw: random.Random) -> float | None:
    """One of two processes killed: the other ends with exit code 3; both go on bit for bit."""
    workdir = lab.workdir()
    pair = lab.together(workdir, processes=2)
    at_step(draw, pair[0], workdir)
    victim = draw.randrange(2)
    pair[victim].kill()
    with in_time(workdir):
        pair[1 - victim].ends(CODE, seconds=NOTICES_WITHIN)
    return lab.goes_on(workdir, processes=2)


def sigterm(lab: Lab, draw: random.Random) -> float | None:
    """Told to stop: saved and ended with exit code 0 within 30 s; goes on bit for bit."""
    workdir = lab.workdir()
    _stopped(lab, draw, workdir)
    return lab.goes_on(workdir)


def _stopped(lab: Lab, draw: random.Random, workdir: pathlib.Path, first: int = 1) -> None:
    child = lab.start(workdir)
    at_step(draw, child, workdir, first)
    child.send(signal.SIGTERM)
    with in_time(workdir):
        child.ends(0, seconds=STOPS_WITHIN)
    summary = read_json(workdir / "summary.json")
    if summary["status"] == "finished":
        raise Missed
    if summary["step"] not in saved(workdir):
        raise Lost(f"stopped at step {summary['step']}; found checkpoints {saved(workdir)}")


# ---------------------------------------------------------------------------- checkpoints


def _cut(path: pathlib.Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def _flip(path: pathlib.Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _remove(path: pathlib.Path, draw: random.Random) -> None:
    path.unlink()


def _damaged(spoil: Spoil, lab: Lab, draw: random.Random) -> float | None:
    workdir = lab.workdir()
    _stopped(lab, draw, workdir, first=SAVED_EVERY + 1)
    older, newest = saved(workdir)[-2:]
    folder = workdir / "checkpoints" / str(newest)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != manifest.NAME)
    path = draw.choice([p for p in files if p.stat().st_size])
    spoil(path, draw)
    return lab.goes_on(
        workdir, says=(f"damaged checkpoint: {path}: ", f"going on from step {older}")
    )


def truncated(lab: Lab, draw: random.Random) -> float | None:
    """A file of the newest checkpoint cut short: named, the older one used; ends bit for bit."""
    return _damaged(_cut, lab, draw)


def bitflip(lab: Lab, draw: random.Random) -> float | None:
    """A bit of the newest checkpoint flipped: file named, the older one used; ends bit for bit."""
    return _damaged(_flip, lab, draw)


def missing(lab: Lab, draw: random.Random) -> float | None:
    """A file of the newest checkpoint gone: named, the older one used; ends bit for bit."""
    return _damaged(_remove, lab, draw)


def full_disk(lab: Lab, draw: random.Random) -> float | None:
    """A save that does not fit: said, older checkpoints whole; with room goes on bit for bit."""
    workdir = lab.workdir()
    child = lab.start(workdir)
    # One is there by the time that the next is begun.
    at_step(draw, child, workdir, first=2 * SAVED_EVERY + 1)
    try:
        _, hard = resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(child.process.pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, hard))
    except ProcessLookupError:
        raise Missed from None
    with in_time(workdir):
        child.ends(1, "was not written: File too large")
    steps = saved(workdir)
    if not steps:
        raise Lost("found no checkpoint, expected those from before")
    for step in steps:
        if damage := manifest.damage(workdir / "checkpoints" / str(step)):
            raise Lost(damage)
    return lab.goes_on(workdir)


# ---------------------------------------------------------------------------- workdirs


def two_runs(lab: Lab, draw: random.Random) -> float | None:
    """A second run in the same folder is refused by name; the first ends bit for bit."""
    workdir = lab.workdir()
    first = lab.start(workdir)
    at_step(draw, first, workdir)
    first.send(signal.SIGSTOP)  # or it would be over before the second has started
    try:
        second = lab.start(workdir)
        with in_time(workdir):
            second.ends(2, f"error: --workdir={workdir}: in use by process {first.process.pid}")
    finally:
        first.process.send_signal(signal.SIGCONT)
    first.ends(0)
    same(ended(workdir), lab.whole())
    return None


def other_config(lab: Lab, draw: random.Random) -> float | None:
    """Another config in the folder is refused, its field named; the run goes on bit for bit."""
    workdir = lab.workdir()
    child = lab.start(workdir)
    at_step(draw, child, workdir)
    child.kill()
    field, value = draw.choice(
        [("optimizer.learning_rate", 0.02), ("train.seed", 7), ("losses.sigreg.weight", 0.05)]
    )
    other = lab.start(workdir, f"{field}={value}")
    other.ends(2, "holds a run of another config", field)
    return lab.goes_on(workdir)


# ---------------------------------------------------------------------------- data


@contextmanager
def _spoilt_image(lab: Lab, draw: random.Random) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """(an image cut short in its first half, the overrides that read its folder)."""
    folder = lab.folder / "images"
    if not folder.exists():
        _images(folder)
    path = draw.choice(sorted((folder / "train").rglob("*.png")))
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: draw.randrange(len(whole) // 2)])
        yield path, ["data.source=image_folder", f"data.path={folder}"]
    finally:
        path.write_bytes(whole)


def _images(folder: pathlib.Path) -> None:
    numbers = np.random.default_rng(0)
    for split, count in IMAGES.items():
        for i in range(count):
            path = folder / split / str(i % 2) / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbers.integers(0, 256, (8, 8), np.uint8)).save(path)


def bad_image(lab: Lab, draw: random.Random) -> float | None:
    """An image cut short ends the run with exit code 2, named; mended, it goes on bit for bit."""
    workdir = lab.workdir()
    with _spoilt_image(lab, draw) as (path, overrides):
        lab.start(workdir, *overrides).ends(2, str(path))
    return lab.goes_on(workdir, *overrides)


def bad_image_skipped(lab: Lab, draw: random.Random) -> float | None:
    """An image cut short is counted and named, and the run finishes without it."""
    workdir = lab.workdir()
    with _spoilt_image(lab, draw) as (path, overrides):
        child = lab.start(workdir, *overrides, "data.on_bad_record=skip")
        child.ends(0)
    bad = read_json(workdir / "summary.json")["bad_records"]
    if len(bad) != 1 or str(path) not in bad[0]:
        raise Lost(f"found bad records {bad}, expected {path}")
    _finite_to(workdir, STEPS)
    return None


# ---------------------------------------------------------------------------- not finite


def _overflows(
    lab: Lab, draw: random.Random, *overrides: str, code: int = 0
) -> tuple[int, pathlib.Path, str]:
    """A run whose regulariser overflows at one drawn step: (that step, workdir, what it said)."""
    good = draw.randint(SAVED_EVERY + 5, STEPS - SAVED_EVERY)
    # A schedule is read at the steps done before.
    weight = f"('piecewise', 0.02, ({good}, 3e38), ({good + 1}, 0.02))"
    workdir = lab.workdir()
    child = lab.start(workdir, f"losses.sigreg.weight={weight}", *overrides)
    child.ends(code)
    wanted, found = lab.whole().rows, rows(workdir)
    # What comes after a checkpoint that is gone back to is drawn anew.
    back = "nonfinite.action=rewind" in overrides
    last = good // SAVED_EVERY * SAVED_EVERY if back else good
    for step in range(1, last + 1):
        if found.get(step) != wanted[step]:
            raise Lost(f"step {step}: found {found.get(step)}, expected {wanted[step]}")
    return good + 1, workdir, child.said


def nan_stop(lab: Lab, draw: random.Random) -> float | None:
    """A loss that overflows ends the run with exit code 1, step and last checkpoint named."""
    step, _, said = _overflows(lab, draw, code=1)
    line = next((x for x in said.splitlines() if x.startswith("stopped: ")), said)
    good = (step - 1) // SAVED_EVERY * SAVED_EVERY
    for word in (f"stopped: step {step}: ", f"last good checkpoint: step {good}"):
        if word not in line:
            raise Lost(f"found {line!r}, expected {word!r} in it")
    return None


def nan_skip(lab: Lab, draw: random.Random) -> float | None:
    """A step that overflows is left out and counted; the run finishes, every other step finite."""
    step, workdir, _ = _overflows(lab, draw, "nonfinite.action=skip")
    skipped = read_json(workdir / "summary.json")["skipped"]
    if skipped != [step]:
        raise Lost(f"found skipped steps {skipped}, expected [{step}]")
    _finite_to(workdir, STEPS, without=step)
    return None


def nan_rewind(lab: Lab, draw: random.Random) -> float | None:
    """A step that overflows every time: goes back twice to the last checkpoint, then stops."""
    limit = 2
    overrides = ("nonfinite.action=rewind", f"nonfinite.limit={limit}")
    step, workdir, said = _overflows(lab, draw, *overrides, code=1)
    good = (step - 1) // SAVED_EVERY * SAVED_EVERY
    entries = [(e["to_step"], e["cause"]) for e in read_json(workdir / "summary.json")["rewinds"]]
    if entries != [(good, "nonfinite")] * limit:
        raise Lost(f"found rewinds {entries}, expected {limit} to step {good}")
    if f"went back {limit} times before" not in said:
        raise Lost(f"did not say that it went back {limit} times")
    return None


def _finite_to(workdir: pathlib.Path, last: int, without: int = 0) -> None:
    found = rows(workdir)
    for step in range(1, last + 1):
        loss = found.get(step, {}).get("train/loss")
        if step != without and (loss is None or not np.isfinite(loss)):
            raise Lost(f"step {step}: found loss {loss}, expected a number")


FAULTS: dict[str, Fault] = {
    "sigkill": sigkill,
    "sigkill_checkpoint": sigkill_checkpoint,
    "sigterm": sigterm,
    "truncated": truncated,
    "bitflip": bitflip,
    "missing": missing,
    "full_disk": full_disk,
    "two_runs": two_runs,
    "other_config": other_config,
    "bad_image": bad_image,
    "bad_image_skipped": bad_image_skipped,
    "nan_stop": nan_stop,
    "nan_skip": nan_skip,
    "nan_rewind": nan_rewind,
    "sigkill_pair": sigkill_pair,
}
