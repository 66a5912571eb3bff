"""The shortest time that a step can take on given chips, and what sets it."""

from typing import NamedTuple

from jaxssl.plan.chips import Chip


class Bound(NamedTuple):
    """A lower bound of a step's time, as if compute, memory and links never waited for each other.

    Attributes:
      seconds: of a step, the largest of the three.
      compute, memory, links: seconds that each alone would take.
      limit: the name of the largest.
      mfu: the model's FLOPs over what the chips could do in that time: no run is above it.
    """

    seconds: float
    compute: float
    memory: float
    links: float
    limit: str
    mfu: float


def bound(
    device: Chip, *, model_flops: float, executed_flops: float, traffic: float, sent: float
) -> Bound:
    r"""\(t = \max(F / P, M / W, C / I)\) of one device: Williams et al. (2009), Roofline.

    Args:
      device: figures of one device.
      model_flops: of a step on one device, without recomputation.
      executed_flops: F, recomputation and repeated work included.
      traffic: M, bytes that it reads from and writes to its memory.
      sent: C, bytes that it sends to others.

    >>> bound(Chip("x", 1, 100.0, 10.0, 1.0, ""), model_flops=50.0, executed_flops=100.0,
    ...       traffic=5.0, sent=0.5)[4:]
    ('compute', 0.5)
    """
    times = {
        "compute": executed_flops / device.flops,
        "memory": traffic / device.hbm,
        "links": sent / device.ici,
    }
    limit = max(times, key=lambda name: times[name])
    mfu = model_flops / (times[limit] * device.flops) if times[limit] else 0.0
    return Bound(seconds=times[limit], limit=limit, mfu=mfu, **times)
