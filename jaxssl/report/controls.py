"""What a run learned beyond its controls: the same evaluation at random start and on raw input."""

import math
from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any

from jaxssl.report import human, plots
from jaxssl.report.page import table, text

CONTROLS = tuple(plots.CONTROLS)
INTERVAL = "_interval"  # ends the name of half the width of another evaluation's interval


def verdict(evals: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """One sentence on the run against its controls, and "good", "mixed" or "bad".

    An evaluation counts as won where the trained encoder beats every control that it has.

    >>> verdict({"knn/accuracy": {"trained": 0.98, "random_init": 0.95, "raw_input": 0.975}})
    ('Better than every control on the one evaluation.', 'good')
    """
    lost, judged = [], 0
    for name, entry in evals.items():
        rivals = {c: entry[c] for c in CONTROLS if _finite(entry.get(c))}
        if entry.get("trained") is None or not rivals or _unjudged(entry):
            continue
        judged += 1
        gains = {c: _gain(entry, c) for c in rivals}
        worst = min(gains, key=lambda c: gains[c])
        if not gains[worst] > 0:
            lost.append(f"{name} ({worst.replace('_', ' ')} {human.value(rivals[worst])})")
    if not judged:
        return "No evaluation with a control, so this page cannot say what was learned.", "mixed"
    if not lost:
        which = "the one evaluation" if judged == 1 else f"all {judged} evaluations"
        return f"Better than every control on {which}.", "good"
    won = judged - len(lost)
    return (
        f"Better than every control on {won} of {judged} evaluations; not on {', '.join(lost)}.",
        "mixed" if won else "bad",
    )


def _finite(x: Any) -> bool:
    return x is not None and math.isfinite(x)


def _unjudged(entry: Mapping[str, Any]) -> bool:
    return entry.get("better", "higher") is None


def _gain(entry: Mapping[str, Any], control: str) -> float:
    """How much better than a control; a trained value that is not finite is worse than any."""
    if not _finite(entry["trained"]):
        return -math.inf
    difference = float(entry["trained"]) - float(entry[control])
    return -difference if entry.get("better") == "lower" else difference


def section(
    evals: Mapping[str, Mapping[str, Any]], protocols: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """The table of evaluations, each beside its controls with the differences, as HTML.

    `protocols` are the ids of their settings, by evaluator.
    """
    if not evals:
        return ["<h2>Controls</h2>", '<p class="soft">This run made no evaluations.</p>']

    def number(name: str, who: str) -> str:
        x, spread = evals[name].get(who), evals.get(f"{name}{INTERVAL}", {}).get(who)
        if x is None:
            return '<span class="soft">none</span>'
        return text(digits(x)) + (f" &plusmn;&nbsp;{text(digits(spread))}" if spread else "")

    def difference(entry: Mapping[str, Any], control: str) -> str:
        if entry.get("trained") is None or entry.get(control) is None:
            return ""
        change = float(entry["trained"]) - float(entry[control])
        kind = "soft" if _unjudged(entry) else "good" if _gain(entry, control) > 0 else "bad"
        return f'<b class="{kind}">{"+" if change > 0 else ""}{digits(change)}</b>'

    shown = [c for c in CONTROLS if any(entry.get(c) is not None for entry in evals.values())]
    rows = [
        [
            text(name) + (" (less is better)" if entry.get("better") == "lower" else ""),
            f"<b>{number(name, 'trained')}</b>",
            *(cell for c in shown for cell in (number(name, c), difference(entry, c))),
        ]
        for name, entry in evals.items()
        if not is_interval(name, evals)
    ]
    used = {name.partition("/")[0] for name in evals}
    ids = ", ".join(x for name, x in protocols.items() if name in used)
    head = ["evaluation", "trained"]
    for control in shown:
        name = control.replace("_", " ")
        head += [name, f"trained &minus; {name}"]
    return [
        "<h2>Controls</h2>",
        '<p class="soft">The same evaluation of the trained encoder, of the same encoder at its '
        "random start, of the raw input, and, of what is predicted, the error of the best "
        "constant.</p>",
        table(head, rows),
        f'<p class="soft">One seed. Numbers compare under one protocol: {text(ids)}.</p>'
        if ids
        else "",
    ]


def is_interval(name: str, names: Container[str]) -> bool:
    """Whether the name is that of half the width of another's 95 % interval.

    >>> is_interval("fewshot/1_shot_interval", ["fewshot/1_shot", "fewshot/1_shot_interval"])
    True
    """
    return name.endswith(INTERVAL) and name.removesuffix(INTERVAL) in names


def digits(x: float) -> str:
    """A value as tables of evaluations show it.

    >>> digits(0.98766), digits(43.81)
    ('0.9877', '43.81')
    """
    return f"{x:.4f}" if abs(x) < 10 else human.value(x)
