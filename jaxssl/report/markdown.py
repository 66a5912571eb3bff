"""Parts of the README's generated blocks: tables, numbers with their spread, markers."""

import statistics
from collections.abc import Mapping, Sequence

from jaxssl.config.errors import ConfigError


def filled(readme: str, blocks: Mapping[str, str]) -> str:
    """`readme` with each block between its markers.

    Raises:
      ConfigError: a marker that is missing.

    >>> filled("<!-- a -->old<!-- /a -->", {"a": "new"})
    '<!-- a -->\\nnew\\n<!-- /a -->'
    """
    for name, block in blocks.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = readme.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ConfigError(f"README.md: expected the markers {start} and {end}")
        readme = f"{before}{start}\n{block}\n{end}{after}"
    return readme


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells.

    >>> print(table(("a", "b"), [("1", "2")]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], scale: float = 100, digits: int = 1) -> str:
    """The mean over seeds, and their sample standard deviation where there are several.

    >>> spread([0.5]), spread([0.4, 0.6]), spread([12.0], scale=1)
    ('50.0', '50.0 ± 14.1', '12.0')
    """
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def count(n: int, what: str) -> str:
    """A number of things in words.

    >>> count(1, "seed"), count(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{n} {what}{'' if n == 1 else 's'}"
