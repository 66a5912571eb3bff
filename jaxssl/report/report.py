"""One self-contained page about a run: verdict, controls, curves, neighbours, features, config.

Rebuild it from the files of a run with `python -m jaxssl.report.report --workdir=RUN`.
"""

import argparse
import os
import pathlib
import pprint
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jaxssl.config.errors import ConfigError
from jaxssl.report import controls, curves, features, human, writers
from jaxssl.report import samples as kept
from jaxssl.report.page import page, table, text
from jaxssl.report.samples import Pictures, Samples

_PARTS = (
    *("encoder", "student", "teachers", "losses", "views", "masks", "targets"),
    *("optimizer", "stages"),
)
_MOST_ALARMS = 8
_LIMITS = ("threshold", "baseline")  # of an alarm, where it has them


def write(
    workdir: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    samples: Samples | None = None,
    pictures: Pictures = MappingProxyType({}),
) -> pathlib.Path:
    """Writes `report.html`, and what its pictures need to be rebuilt; returns the page's path.

    Args:
      workdir: folder of the run.
      config: the resolved config, as nested dicts.
      metrics: what `writers.read_metrics` returns.
      summary: what `writers.write_summary` returns.
      samples: held-out images and their neighbours; without them the page has none.
      pictures: title -> (captions, uint8 [n, K, h, w, C]), shown in rows of K.
    """
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    if samples is not None:
        kept.save(folder, samples)
    if pictures:
        kept.save_pictures(folder, pictures)
    return _render(folder, config, metrics, summary, samples, pictures)


def rebuild(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `report.html` from the files that a run left.

    Raises:
      ConfigError: a file of the run is missing or broken.
    """
    folder = pathlib.Path(workdir)
    if not folder.is_dir():
        raise ConfigError(f"--workdir: found no folder {folder}, expected one that a run wrote to")
    samples, pictures = kept.load(folder), kept.load_pictures(folder)
    config, summary = (writers.read_json(folder / f"{name}.json") for name in ("config", "summary"))
    metrics = writers.read_metrics(folder / writers.METRICS)
    return _render(folder, config, metrics, summary, samples, pictures)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 2 where the input is bad."""
    parser = argparse.ArgumentParser(prog="python -m jaxssl.report.report", description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of the run")
    try:
        print(rebuild(parser.parse_args(argv).workdir))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


# --- sections ------------------------------------------------------------------------------------


def _render(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    samples: Samples | None,
    pictures: Pictures,
) -> pathlib.Path:
    evals = summary.get("evals") or {}
    name = str(config.get("name") or config.get("method") or "run")
    fields = pprint.pformat(dict(config), width=110, sort_dicts=False)
    body = [
        *_headline(name, config, summary, evals),
        *controls.section(evals, summary.get("protocols", {})),
        *curves.section(metrics, evals),
        *features.pictures(pictures),
        *(_looks(samples) if samples is not None else []),
        *_parts(config),
        "<h2>Resolved config</h2>",
        f"<details><summary>Every field</summary><pre>{text(fields)}</pre></details>",
    ]
    path = folder / "report.html"
    writers.write_text(path, page(f"{name} - jaxssl report", body))
    return path


def _headline(
    name: str, config: Mapping[str, Any], summary: Mapping[str, Any], evals: Mapping[str, Any]
) -> list[str]:
    status = str(summary.get("status", "unknown"))
    data = config.get("data")
    source = data.get("source") if isinstance(data, Mapping) else data
    encoder = config.get("encoder")
    train = config.get("train")
    steps = train.get("steps") if isinstance(train, Mapping) else None
    done = f"{summary.get('step', 0):,}" + (f" of {steps:,}" if isinstance(steps, int) else "")
    rate = summary.get("examples_per_second")
    facts = [
        ("status", status),
        ("data", source),
        ("encoder", encoder.get("name") if isinstance(encoder, Mapping) else encoder),
        ("steps", done),
        ("training time", human.duration(float(summary.get("seconds") or 0))),
        ("examples / s", human.value(rate) if rate is not None else None),
    ]
    sentence, kind = controls.verdict(evals)
    reason = summary.get("reason")
    return [
        f"<h1>{text(name)}</h1>",
        f'<div class="verdict {kind}">{text(sentence)}</div>',
        *([f'<div class="verdict bad">{text(status)}: {text(reason)}</div>'] if reason else []),
        '<div class="facts">',
        *(f"<div><span>{k}</span><b>{text(v)}</b></div>" for k, v in facts if v is not None),
        "</div>",
        *_alarms(summary.get("alarms") or ()),
    ]


def _alarms(alarms: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each kind of alarm and metric: the first time, and how often in all."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for alarm in alarms:
        groups.setdefault((str(alarm.get("kind")), str(alarm.get("metric"))), []).append(alarm)
    lines = []
    for (kind, metric), raised in list(groups.items())[:_MOST_ALARMS]:
        first = raised[0]
        facts = [
            f"{name} {_number(first[name])}" for name in _LIMITS if first.get(name) is not None
        ]
        said = f"{kind}: {metric} was {_number(first.get('value'))}"
        said += f" at step {_number(first.get('step'))}"
        said += f" ({', '.join(facts)})" if facts else ""
        if len(raised) > 1:
            said += f"; {len(raised)} times, last at step {_number(raised[-1].get('step'))}"
        lines.append(f'<div class="verdict bad">Alarm &middot; {text(said)}</div>')
    if len(groups) > _MOST_ALARMS:
        more = len(groups) - _MOST_ALARMS
        lines.append(f'<p class="soft">{more} more alarms are in summary.json.</p>')
    return lines


def _number(x: Any) -> str:
    return human.value(float(x)) if isinstance(x, int | float) else str(x)


def _looks(samples: Samples) -> list[str]:
    return features.nearest(samples) + features.maps(samples) + features.confusion(samples)


# --- config -------------------------------------------------------------------------------------


def _parts(config: Mapping[str, Any]) -> list[str]:
    rows = []
    for part in _PARTS:
        x = config.get(part)
        if not x:
            continue
        named = isinstance(x, Mapping) and all(isinstance(v, Mapping) for v in x.values())
        for i, (name, value) in enumerate(x.items() if named else [("", x)]):
            rows.append(["" if i else part, text(name), f"<code>{text(_line(value))}</code>"])
    if not rows:
        return []
    return ["<h2>Parts</h2>", table(["part", "name", "fields"], rows, words=3)]


def _line(x: Any) -> str:
    """Fields in one line: name = value, nested ones in braces."""
    if isinstance(x, Mapping):
        pairs = (f"{k} = {_braced(v)}" for k, v in x.items() if v is not None)
        return ", ".join(pairs)
    return _braced(x)


def _braced(x: Any) -> str:
    if isinstance(x, Mapping):
        return "{" + _line(x) + "}"
    if isinstance(x, list | tuple):
        return "(" + ", ".join(_braced(v) for v in x) + ")"
    return str(x)


if __name__ == "__main__":
    sys.exit(main())
