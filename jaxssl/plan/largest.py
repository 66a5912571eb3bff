"""The largest global batch whose step fits into the memory of a device, by bisection."""

from collections.abc import Callable

CLOSE = 16  # the search ends when one more share of 1/16 does not fit
MOST = 8  # calls that it usually makes, for those who show its progress


def search(fits: Callable[[int], bool], start: int, unit: int, most: int) -> int:
    """The largest multiple of `unit` up to `most` that fits, to within 1/16 of itself; 0: none.

    What fits must fit at every smaller size, too: about eight calls find it.

    Args:
      fits: whether a size does; dear.
      start: where to begin.
      unit: of which every size is a multiple.
      most: no size is above it.

    >>> search(lambda n: n <= 1000, start=128, unit=8, most=10**6)
    992
    """
    top = most // unit
    if top < 1:
        return 0
    n = min(max(1, start // unit), top)
    low, high = 0, top + 1  # low fits, high does not
    while low + 1 < high and (high > top or low == 0):
        if fits(n * unit):
            low, n = n, min(2 * n, top)
        else:
            high, n = n, max(1, n // 2)
        if low == top or (high == 1):
            break
    while high - low > max(1, low // CLOSE):
        n = (low + high) // 2
        low, high = (n, high) if fits(n * unit) else (low, n)
    return low * unit
