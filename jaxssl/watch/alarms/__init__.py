"""Alarms: a run compared, as it goes, with its own random start.

At intervals a few hundred samples are encoded and measured as a set
(`jaxssl.watch.alarms.readings`); readings and the written metrics of training go to a `Judge`
(`jaxssl.watch.alarms.judge`), which raises an alarm where both stay bad. `config.alarms` holds the
thresholds.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxssl.config.errors import ConfigError, near

ACTIONS = ("warn", "stop", "rewind", "off")
# Shorter runs are not measured unless they say how often: it would cost more than it could save.
SHORTEST = 300
DEFAULTS: dict[str, Any] = dict(
    every_steps=0,  # between readings; 0 is a twentieth of the run, and none below 300 steps
    action="warn",  # "stop": the run fails; "rewind": back to before the first sign; "off"
    limit=3,  # the most rewinds of a run; one more stops it
    samples=256,  # training samples that are measured
    patience=2,  # successive bad readings before an alarm
    # A reading is bad below this part of random init's:
    spread=0.1,  # complete collapse; and of prototypes, which give all samples like scores
    rank=0.1,  # dimensional collapse
    rank_at_optimum=0.5,  # the same, where the loss has come down to its optimum
    # A good run may lose dimensions or spread, but not both in all that its heads give:
    volume=0.15,  # dimensional collapse, of RankMe times spread
    nearest=0.05,  # cluster collapse
    codes=1.5,  # fewer codes in use than that: dead prototypes
    optimum=0.01,  # a loss below this part of its first is at its optimum
    explosion=100.0,  # a gradient norm or loss above so many times that of the first tenth
)
POSITIVE = (
    "spread",
    "rank",
    "rank_at_optimum",
    "volume",
    "nearest",
    "codes",
    "optimum",
    "explosion",
)


def validate(settings: Mapping[str, Any]) -> None:
    """Refuses an unknown action and thresholds that are no numbers above zero.

    Raises:
      ConfigError: naming the field.

    >>> validate(DEFAULTS)
    """
    action = settings["action"]
    if action not in ACTIONS:
        raise ConfigError(f"alarms.action: found {action!r}{near(action, ACTIONS)}")
    for name in POSITIVE:
        value = settings[name]
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ConfigError(f"alarms.{name}: found {value!r}, expected a number above zero")


def interval(settings: Mapping[str, Any], total: int) -> int:
    """Steps between readings of a run of `total` steps; 0: none.

    >>> interval(DEFAULTS, 600), interval(DEFAULTS, 60), interval(DEFAULTS | {"every_steps": 7}, 60)
    (30, 0, 7)
    """
    if settings["action"] == "off":
        return 0
    return int(settings["every_steps"]) or (total // 20 if total >= SHORTEST else 0)
