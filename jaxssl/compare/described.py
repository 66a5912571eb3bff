"""What a comparison found, in the docstrings of its experiments: cost, numbers and controls."""

import re
import statistics
import textwrap
from collections.abc import Mapping
from typing import Any

from jaxssl.compare.render import CONTROLS
from jaxssl.compare.tables import CONTROL, TABLES
from jaxssl.markdown import count, spread
from jaxssl.report import human

BEGINS = "At equal compute, by `"
WIDTH = 100


def sentence(experiment: str, record: Mapping[str, Any]) -> str:
    """What a record says of an experiment, as the last paragraph of its docstring.

    Args:
      experiment: its name.
      record: of a table, as `experiments/<table>.json` holds it.

    Returns:
      Lines of at most 100 characters; nothing where no run is on record.
    """
    rows = {row["experiment"]: row for row in record.get("rows", ()) if row["seeds"]}
    row, control = rows.get(experiment), rows.get(experiment + CONTROL)
    if row is None:
        return ""
    spent = TABLES[record["table"]].spent(record["budget"])
    took = human.duration(statistics.fmean(row["seconds"]))
    found = [_both(row, "trained", "kNN ", "linear ")]
    found += [f"{name} {_both(row, kind)}" for kind, name in CONTROLS.items()]
    if control:
        alike = control["seeds"] == row["seeds"]
        seeds = "" if alike else f" ({count(len(control['seeds']), 'seed')})"
        found.append(f"the control {_both(control, 'trained')}{seeds}")
    where = f"{spent} of `{record['preset']}`, {took} on {'; '.join(row['machines'])}"
    seeds = count(len(row["seeds"]), "seed")
    command = f"python -m jaxssl.compare --table={record['table']}"
    text = f"{BEGINS}{command}`: {where}, {seeds}: {'; '.join(found)}."
    return "\n".join(textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def _both(row: Mapping[str, Any], kind: str, knn: str = "", linear: str = "") -> str:
    """The two accuracies of a row in percent."""
    evals = row["evals"]
    return f"{knn}{spread(evals['knn'][kind])}, {linear}{spread(evals['linear'][kind])}"


def described(source: str, paragraph: str) -> str:
    """An experiment's file with the paragraph at the end of its docstring, not the older one.

    >>> old = '\"\"\"A: b.\\n\\nC.\\n\\nAt equal compute, by `1.\\n\"\"\"\\nx = 1\\n'
    >>> described(old, "At equal compute, by `2.")
    '\"\"\"A: b.\\n\\nC.\\n\\nAt equal compute, by `2.\\n\"\"\"\\nx = 1\\n'
    """
    said, quotes, code = source[3:].partition('"""')
    said = re.sub(rf"\n\n{BEGINS}.*", "", said.rstrip(), flags=re.DOTALL)
    more = f"\n\n{paragraph}" if paragraph else ""
    return f'"""{said}{more}\n{quotes}{code}'
