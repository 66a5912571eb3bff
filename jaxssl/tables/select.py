"""A selection of the samples of a table: those to train on, some of them several times, maybe."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Array, Source
from jaxssl.losses.curriculum import curriculum_selection, self_paced_weights
from jaxssl.method import Field
from jaxssl.tables.inputs import check_column
from jaxssl.tables.table import Table

WAYS = ("threshold", "top", "per_class", "pace")
WEIGHT = Field("target", (), "float32")


def make(
    subject: None,
    source: Source,
    *,
    table: Table,
    score: str = "confidence",
    threshold: float | None = None,
    top: float | None = None,
    per_class: int | None = None,
    pace: float | None = None,
    balance: bool = False,
    label: str = "label",
    known: Table | None = None,
) -> Table:
    """The samples that pass one test of their score, and their `weight`, which is 1 but for `pace`.

      threshold: s >= threshold;
      top: the best `top` per cent, ties included (`losses.curriculum_selection`);
      per_class: the best so many of each class;
      pace: the score is a loss: weight max(0, 1 - s / pace), above zero
        (`losses.self_paced_weights`).

    Args:
      subject: none.
      source: of the samples.
      table: of their scores.
      score, label: its columns.
      threshold, top, per_class, pace: one of them.
      balance: whether classes with fewer samples have them again until all have as many.
      known: a table of samples that are always selected, and count for no test.

    Raises:
      ConfigError: none or several tests, a bad number, a column that is not there.
    """
    _check(source, **{k: v for k, v in locals().items() if k not in ("subject", "source")})
    free = np.ones(len(table.index), bool)
    if known is not None:
        free = ~np.isin(table.index, known.index)
    rows = np.flatnonzero(free)
    s = table.columns[score][rows].astype(np.float32)
    weights = np.ones(len(table.index), np.float32)
    if threshold is not None:
        chosen = rows[s >= threshold]
    elif top is not None:
        passed, _ = curriculum_selection(jnp.asarray(s), round=1, step=top)
        chosen = rows[np.asarray(passed)]
    elif per_class is not None:
        classes = table.columns[label][rows]
        order = np.argsort(-s, kind="stable")
        best = [order[classes[order] == k][:per_class] for k in np.unique(classes)]
        chosen = rows[np.concatenate(best)]
    else:
        none, paces = jnp.zeros(len(s), bool), jnp.asarray([pace])
        weights[rows] = np.asarray(self_paced_weights(jnp.asarray(s)[:, None], paces, none))[:, 0]
        chosen = rows[weights[rows] > 0]
    taken = np.sort(np.concatenate([chosen, np.flatnonzero(~free)]))
    if balance:
        taken = _balanced(taken, table.columns[label])
    facts = {"selected": len(chosen), "share": len(chosen) / max(1, len(rows))}
    return _table(table, taken, weights, facts)


def example(subject: None, source: Source, *, table: Table, **fields: Any) -> Table:
    """As `make`, of all samples, of which fewer may be selected."""
    _check(source, table, **fields)
    return _table(table, np.arange(len(table.index)), np.ones(len(table.index), np.float32), {})


def _check(source: Source, table: Table, score: str = "confidence", **fields: Any) -> None:
    given = [way for way in WAYS if fields.get(way) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ConfigError(f"threshold: found {found}, expected one of {', '.join(WAYS)}")
    value, way = fields[given[0]], given[0]
    fits = {"threshold": True, "top": 0 < value <= 100, "per_class": value >= 1, "pace": value > 0}
    if not fits[way]:
        wanted = "above 0, at most 100" if way == "top" else "above zero"
        raise ConfigError(f"{way}: found {value}, expected a number {wanted}")
    check_column(source, table, score, "score")
    if way == "per_class" or fields.get("balance"):
        check_column(source, table, fields.get("label", "label"), "label")
    known = fields.get("known")
    if known is not None and known.samples != table.samples:
        raise ConfigError("known: found a table of other samples than `table`")


def _balanced(rows: Array, labels: Array) -> Array:
    """Rows with those of smaller classes repeated in turn, until all classes have as many."""
    parts = [rows[labels[rows] == k] for k in np.unique(labels[rows])]
    most = max(map(len, parts), default=0)
    return np.concatenate([np.resize(part, most) for part in parts])


def _table(table: Table, rows: Array, weights: Array, facts: dict[str, float]) -> Table:
    index = table.index[rows]
    return Table(index, {"weight": weights[rows]}, {"weight": WEIGHT}, table.samples, facts)
