"""The judge: from the rows of `metrics.jsonl` alone, when a run has failed, and of what."""

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxssl.report import human
from jaxssl.report.writers import METRICS, read_metrics
from jaxssl.watch.alarms.readings import PREFIX

# The gravest first: of several at once, the first is the alarm and the others its evidence.
KINDS = (
    "exploding loss",
    "exploding gradient",
    "complete collapse",
    "dead prototypes",
    "cluster collapse",
    "dimensional collapse",
    "copying",
)
COLLAPSES = KINDS[2:6]
LASTING = 3  # rows of training that count as lasting
VANISHED = 1e-4  # a gradient norm below this part of the first has vanished
ENCODER = "pooled"  # the output that heads read
UNMOVED = 0.1  # features within this part of random init's have not moved
LABELS = {
    "rankme": "RankMe",
    "spread": "spread",
    "nearest": "distance of the nearest",
    "codes": "codes in use",
    "contrast": "contrast of the scores",
}


class Alarm(NamedTuple):
    """A verdict with its evidence.

    Attributes:
      step: at which it was raised.
      kind: of KINDS.
      metric: name in `metrics.jsonl`.
      value: of the metric.
      threshold: that it is beyond.
      baseline: what it is compared with: random init's, or that of the run's first tenth.
      since: the step of the first sign.
      also: further signs of the same moment, as text.
    """

    step: int
    kind: str
    metric: str
    value: float
    threshold: float
    baseline: float
    since: int
    also: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """For `summary.json`."""
        return self._asdict() | {"also": list(self.also)}

    def evidence(self) -> str:
        """What was found, against what.

        >>> Alarm(120, "dimensional collapse", "alarms/pooled/rankme", 1.3, 4.1, 41.0, 90).line()
        'step 120: dimensional collapse: RankMe 1.3 of pooled, 41 at random init; since step 90'
        """
        number = human.value
        if not self.metric.startswith(PREFIX):
            name = self.metric.removeprefix("train/").replace("_", " ")
            begun = "first" if self.kind == "copying" else "in the first tenth"
            return f"{name} {number(self.value)}, {number(self.baseline)} {begun}"
        output, measure = self.metric.removeprefix(PREFIX).rsplit("/", 1)
        was = f"{number(self.baseline)} at random init"
        return f"{LABELS[measure]} {number(self.value)} of {output}, {was}"

    def line(self) -> str:
        """The verdict in one line."""
        parts = [self.evidence(), *self.also]
        if self.kind == "copying":
            parts.append("and the features are still those of random init")
        since = [f"since step {self.since}"] if self.since < self.step else []
        return f"step {self.step}: {self.kind}: {'; '.join(parts + since)}"


class _Sign(NamedTuple):
    kind: str
    metric: str
    value: float
    threshold: float
    baseline: float


class Judge:
    """Raises alarms from rows of metrics, in the order of their steps.

    It knows nothing but the rows, so that one which is given those of an interrupted run goes on
    as if there had been no interruption.

    Args:
      settings: `config.alarms`.
      total: steps of the run.

    Attributes:
      alarms: all that were raised; each kind once, and none of a lighter collapse after a graver.
    """

    def __init__(self, settings: Mapping[str, Any], total: int):
        self.alarms: list[Alarm] = []
        self._settings, self._tenth = settings, total / 10
        self._baseline: dict[str, float] = {}
        self._streaks: dict[str, dict[tuple[str, str], list[int]]] = {"train": {}, "features": {}}
        self._first: dict[str, list[float]] = {"loss": [], "gradient_norm": []}
        self._recent: dict[str, list[float]] = {"loss": [], "gradient_norm": []}

    @property
    def has_baseline(self) -> bool:
        """Whether random init was read."""
        return bool(self._baseline)

    def add(self, row: Mapping[str, Any]) -> list[Alarm]:
        """Takes the next row, {"step": ..., name: value}, and returns the alarms that it raises."""
        if self._settings["action"] == "off":
            return []
        step, raised = int(row["step"]), []
        row = {name: _as_written(x) for name, x in row.items()}
        read = {name: x for name, x in row.items() if name.startswith(PREFIX)}
        if read and step == 0:
            self._baseline = read
        elif read:
            signs = self._of_features(read)
            raised += self._heed("features", step, signs, int(self._settings["patience"]))
        if "train/loss" in row:
            raised += self._heed("train", step, self._of_training(row), LASTING)
        self.alarms += raised
        return raised

    def catch_up(self, workdir: pathlib.Path, step: int | None) -> None:
        """Takes the rows that a run which goes on from `step` left; None is one that begins."""
        path = workdir / METRICS
        rows = read_metrics(path) if step is not None and path.exists() else []
        for row in rows:
            if row["step"] <= (step or 0):
                self.add(row)

    def _of_training(self, row: Mapping[str, float]) -> list[_Sign]:
        signs, factor = [], float(self._settings["explosion"])
        # A loss may cross zero, where a median says nothing of its size.
        for name, size in (("loss", max), ("gradient_norm", statistics.median)):
            value = abs(row.get(f"train/{name}", math.nan))
            if not math.isfinite(value):
                continue  # of another phase; a loss that is not finite stops the run elsewhere
            first = self._first[name]
            usual = size(first) if len(first) >= LASTING else 0.0
            if usual and value > factor * usual:
                kind = "exploding " + name.removesuffix("_norm")
                signs.append(_Sign(kind, f"train/{name}", value, factor * usual, usual))
            elif row["step"] <= self._tenth or len(first) < LASTING:
                first.append(value)
            self._recent[name] = [*self._recent[name], value][-LASTING:]
        return signs

    def _at_optimum(self) -> _Sign | None:
        """The loss, or its gradient, where it has all but gone."""
        for name, part in (("loss", float(self._settings["optimum"])), ("gradient_norm", VANISHED)):
            recent, first = self._recent[name], self._first[name][:LASTING]
            if len(recent) < LASTING or len(first) < LASTING:
                continue
            value, begun = statistics.median(recent), max(first)
            if value <= part * begun:
                return _Sign("copying", f"train/{name}", value, part * begun, begun)
        return None

    def _of_features(self, read: Mapping[str, float]) -> list[_Sign]:
        settings, base = self._settings, self._baseline
        optimum = self._at_optimum()
        rank = settings["rank_at_optimum" if optimum else "rank"]
        below = {
            "spread": ("complete collapse", settings["spread"]),
            "contrast": ("dead prototypes", settings["spread"]),
            "nearest": ("cluster collapse", settings["nearest"]),
            "rankme": ("dimensional collapse", rank),
        }
        signs, moved = [], not base
        for metric, value in read.items():
            was, measure = base.get(metric, math.nan), metric.rsplit("/", 1)[1]
            if not (math.isfinite(value) and math.isfinite(was)):
                moved = True
                continue
            if measure == "codes":  # random init must use some for their loss to say anything
                kind, threshold = "dead prototypes", float(settings["codes"])
                threshold = threshold if was >= 2 * threshold else 0.0
            else:
                kind, threshold = below[measure][0], float(below[measure][1]) * was
                still = abs(value - was) <= UNMOVED * was
                moved |= measure in ("rankme", "spread") and not still
            if value < threshold:
                signs.append(_Sign(kind, metric, value, threshold, was))
        known = {(s.kind, s.metric) for s in signs}
        signs += [s for s in self._shrunk(read) if (s.kind, s.metric) not in known]
        return signs + ([optimum] if optimum and not moved else [])

    def _shrunk(self, read: Mapping[str, float]) -> list[_Sign]:
        """The head whose dimensions times spread has kept most, where that is too little."""
        least = float(self._settings["volume"])
        found: dict[str, list[_Sign]] = {}
        for metric, value in read.items():
            output, measure = metric.removeprefix(PREFIX).rsplit("/", 1)
            was = self._baseline.get(metric, 0.0)
            if measure in ("rankme", "spread") and output != ENCODER and was > 0:
                sign = _Sign("dimensional collapse", metric, value, least * was, was)
                found.setdefault(output, []).append(sign)
        volume = lambda signs: math.prod(s.value / s.baseline for s in signs)
        best = max(found.values(), key=volume, default=[])
        return best if best and volume(best) < least else []

    def _heed(self, of: str, step: int, signs: Sequence[_Sign], patience: int) -> list[Alarm]:
        """The gravest of the signs that have lasted, unless its kind was raised before."""
        before = self._streaks[of]
        now = {(s.kind, s.metric): [*before.get((s.kind, s.metric), []), step] for s in signs}
        self._streaks[of] = now
        ripe = [s for s in signs if len(now[s.kind, s.metric]) >= patience]
        ripe.sort(key=lambda s: KINDS.index(s.kind))
        past = {alarm.kind for alarm in self.alarms}
        collapsed = [KINDS.index(kind) for kind in COLLAPSES if kind in past]
        if not ripe or ripe[0].kind in past:
            return []
        worst, *rest = ripe
        if collapsed and KINDS.index(worst.kind) > min(collapsed):
            return []
        since = now[worst.kind, worst.metric][0]
        alarm = Alarm(step, *worst, since)
        also = [Alarm(step, *sign, since).evidence() for sign in rest if sign.kind in COLLAPSES]
        return [alarm._replace(also=tuple(also))]


def _as_written(x: float) -> float:
    """The number that `metrics.jsonl` gives back: that of a resumed run is the same."""
    return float(str(np.float32(x)))
