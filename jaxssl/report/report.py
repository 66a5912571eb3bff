"""One self-contained page about a run: verdict, controls, curves, neighbours, features, config.

Rebuild it from the files of a run with `python -m jaxssl.report.report --workdir=RUN`.
"""

import argparse
import io
import os
import pathlib
import pprint
import sys
import zipfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxssl.errors import ConfigError
from jaxssl.report import controls, human, plots, writers
from jaxssl.report.page import drawing, page, picture, table, text

_PARTS = (
    *("encoder", "student", "teachers", "losses", "views", "masks", "targets"),
    *("optimizer", "stages"),
)
_SAMPLES, _PICTURES = "samples.npz", "pictures.npz"
Pictures = Mapping[str, tuple[Sequence[str], NDArray]]
_QUERIES, _NEIGHBOURS, _MOST_CHARTS = 10, 8, 24


class Samples(NamedTuple):
    """Held-out images and a bank of others, with the trained encoder's features of both.

    Attributes:
      images: uint8 [n, H, W, C].
      labels: int [n].
      features: float [n, D].
      bank_images: uint8 [N, H, W, C]; none of `images` among them.
      bank_labels: int [N].
      bank_features: float [N, D].
      label_names: the name of each label; may be empty.
    """

    images: NDArray
    labels: NDArray
    features: NDArray
    bank_images: NDArray
    bank_labels: NDArray
    bank_features: NDArray
    label_names: Sequence[str] = ()


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
        names = np.asarray(samples.label_names, dtype=str)
        packed = io.BytesIO()
        np.savez_compressed(packed, **(samples._asdict() | {"label_names": names}))
        writers.write_bytes(folder / _SAMPLES, packed.getvalue())
    if pictures:
        packed = io.BytesIO()
        rows: dict[str, Any] = {title: images for title, (_, images) in pictures.items()}
        rows |= {f"{title}/captions": np.asarray(c) for title, (c, _) in pictures.items()}
        np.savez_compressed(packed, **rows)
        writers.write_bytes(folder / _PICTURES, packed.getvalue())
    return _render(folder, config, metrics, summary, samples, pictures)


def rebuild(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `report.html` from the files that a run left.

    Raises:
      ConfigError: a file of the run is missing or broken.
    """
    folder = pathlib.Path(workdir)
    if not folder.is_dir():
        raise ConfigError(f"--workdir: found no folder {folder}, expected one that a run wrote to")
    arrays = _arrays(folder / _SAMPLES)
    samples = Samples(**arrays) if arrays.keys() >= set(Samples._fields) else None
    shown = _arrays(folder / _PICTURES)
    pictures = {
        title: (shown[f"{title}/captions"].tolist(), images)
        for title, images in shown.items()
        if f"{title}/captions" in shown
    }
    config, summary = (writers.read_json(folder / f"{name}.json") for name in ("config", "summary"))
    metrics = writers.read_metrics(folder / writers.METRICS)
    return _render(folder, config, metrics, summary, samples, pictures)


def _arrays(path: pathlib.Path) -> dict[str, Any]:
    """The arrays of a file, none where it is absent.

    Raises:
      ConfigError: it is broken.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{path}: found {reason}, expected the arrays that a run writes; "
            "remove it to have a report without pictures"
        ) from None


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
        *controls.section(evals),
        *_curves(metrics, evals),
        *_pictures(pictures),
        *(_neighbours(samples) + _features(samples) if samples is not None else []),
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
    ]


# --- curves -------------------------------------------------------------------------------------


def _curves(metrics: Sequence[Mapping[str, Any]], evals: Mapping[str, Any]) -> list[str]:
    series: dict[str, dict[int, float]] = {}
    for row in metrics:
        for name, x in row.items():
            if name != "step" and isinstance(x, int | float):
                # A step may come twice, after a restart: the later line holds.
                series.setdefault(name, {})[int(row["step"])] = float(x)
    groups: dict[str, list[str]] = {}
    for name in series:
        groups.setdefault(name.split("/", 1)[0] if "/" in name else "other", []).append(name)
    html = ["<h2>Curves</h2>"]
    if not series:
        html.append('<p class="soft">No metrics were written.</p>')
    for group, names in sorted(groups.items(), key=lambda pair: pair[0] != "eval"):
        html += [f"<h3>{text(group)}</h3>", '<div class="charts">']
        for name in names[:_MOST_CHARTS]:
            short = name.removeprefix(f"{group}/")
            steps = sorted(series[name])
            entry = _entry(short, names, group, evals) if group == "eval" else {}
            svg = plots.curve(
                steps,
                [series[name][s] for s in steps],
                title=short,
                controls={c: float(entry[c]) for c in plots.CONTROLS if entry.get(c) is not None},
                marks=len(steps) <= 30,
            )
            html.append(drawing(svg))
        html.append("</div>")
        if len(names) > _MOST_CHARTS:
            html.append(f'<p class="soft">{len(names) - _MOST_CHARTS} more are in the files.</p>')
    return html


def _entry(
    name: str, names: Sequence[str], group: str, evals: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The controls of a metric: of its full name, or of its first word if no other shares that."""
    word = name.split("/", 1)[0]
    alone = sum(other.startswith(f"{group}/{word}/") for other in names) == 1
    return evals.get(name) or (evals.get(word) if alone else None) or {}


# --- pictures -----------------------------------------------------------------------------------


def nearest(features: NDArray, bank: NDArray, k: int) -> NDArray:
    """Indices [n, k] into the bank [N, D] of each row's nearest by cosine, nearest first."""

    def unit(x: NDArray) -> NDArray:
        x = np.nan_to_num(x.astype(np.float32), posinf=0, neginf=0)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    return np.argsort(-(unit(features) @ unit(bank).T), axis=1, kind="stable")[:, :k]


def _neighbours(samples: Samples) -> list[str]:
    # The first of each label, then the second of each, ...: rows that show every label.
    seen: dict[int, int] = {}
    turns = []
    for i, label in enumerate(samples.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], label, i))
    queries = [i for _, _, i in sorted(turns)[:_QUERIES]]
    found = nearest(samples.features[queries], samples.bank_features, _NEIGHBOURS)
    rows, right = [], 0
    for query, near in zip(queries, found):
        label = int(samples.labels[query])
        cells = [_image(samples.images[query], label, samples, "")]
        for i in near:
            same = int(samples.bank_labels[i]) == label
            right += same
            cells.append(
                _image(
                    samples.bank_images[i],
                    int(samples.bank_labels[i]),
                    samples,
                    "" if same else "bad",
                )
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return [
        "<h2>Nearest neighbours</h2>",
        '<p class="soft">Held-out images (left of the line) and what the features find nearest in '
        f"the bank by cosine. {right} of {found.size} share the label; the others have a red frame "
        "and &#10007;.</p>",
        f'<div class="scroll"><table class="near">{"".join(rows)}</table></div>',
    ]


def _pictures(pictures: Pictures) -> list[str]:
    html = ["<h2>Predictions and attention</h2>"] if pictures else []
    for title, (captions, images) in pictures.items():
        # A row for each kind of picture, a column for each sample.
        cells = lambda k, images=images: "".join(
            f"<td>{picture(plots.thumbnail(sample[k]), '')}</td>" for sample in images
        )
        rows = [f"<tr><td>{text(c)}</td>{cells(k)}</tr>" for k, c in enumerate(captions)]
        html += [
            f"<h3>{text(title)}</h3>",
            f'<div class="scroll"><table class="near">{"".join(rows)}</table></div>',
        ]
    return html


def _image(image: NDArray, label: int, samples: Samples, kind: str) -> str:
    name = plots.label_name(label, samples.label_names)
    mark = " &#10007;" if kind else ""
    inner = picture(plots.thumbnail(image), name)
    return f'<td><div class="{kind}">{inner}{text(name)}{mark}</div></td>'


def _features(samples: Samples) -> list[str]:
    kept = plots.spread(len(samples.bank_features))
    labels = samples.bank_labels[kept]
    points, eigenvalues = plots.principal(samples.bank_features[kept])
    raw_points, raw_eigenvalues = plots.principal(plots.pixels(samples.bank_images[kept]))
    names = samples.label_names
    return [
        "<h2>Features</h2>",
        f'<p class="soft">{len(kept):,} samples of the bank on their first two principal axes, '
        "coloured by label, beside their pixels (at 32 a side or fewer); and how evenly directions "
        "are used: the effective rank is exp of the entropy of the shares.</p>",
        '<div class="charts">',
        drawing(plots.scatter(points, labels, names, title="trained features, PCA")),
        drawing(plots.scatter(raw_points, labels, names, title="raw input, PCA")),
        drawing(plots.spectrum({"trained": eigenvalues, "raw input": raw_eigenvalues})),
        "</div>",
    ]


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
    return ["<h2>Parts</h2>", table(["part", "name", "fields"], rows, numbers=False)]


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
