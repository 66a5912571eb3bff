"""The verdict on a method against one control, from the values of a metric at several seeds."""

import math
import statistics
from collections.abc import Mapping

BETTER, TIED, WORSE = "better", "tied", "worse"


def verdict(
    method: Mapping[str, float], control: Mapping[str, float], better: str = "higher"
) -> str | None:
    """ "better", "tied" or "worse", from the differences at the seeds that both were run at.

    The method is better where the mean difference exceeds twice its standard error and every seed
    agrees; worse where the same holds of the control.

    Args:
      method, control: seed -> value.
      better: "higher", or "lower" of a metric that is an error.

    Returns:
      None where they share fewer than two seeds: one difference has no standard error.

    >>> verdict({"0": 0.90, "1": 0.92}, {"0": 0.80, "1": 0.81})
    'better'
    >>> verdict({"0": 0.90, "1": 0.92}, {"0": 0.80, "1": 0.81}, better="lower")
    'worse'
    >>> verdict({"0": 0.90, "1": 0.80}, {"0": 0.80, "1": 0.81})
    'tied'
    >>> verdict({"0": 0.9}, {"0": 0.8})
    """
    sign = -1.0 if better == "lower" else 1.0
    gains = [sign * (method[seed] - control[seed]) for seed in sorted(method.keys() & control)]
    if len(gains) < 2:
        return None
    mean = statistics.fmean(gains)
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    if mean > 2 * error and min(gains) > 0:
        return BETTER
    if mean < -2 * error and max(gains) < 0:
        return WORSE
    return TIED
