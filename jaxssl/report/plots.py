"""Pictures of a run as SVG or PNG bytes, drawn without pyplot and its global state.

Axes and text are drawn in the one colour `INK`, and backgrounds are transparent: a page that puts
the SVG in line replaces it by `currentColor`, so that pictures follow its light or dark theme.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from PIL import Image

INK = "#7f7f81"
TRAINED, RANDOM, RAW, CONSTANT = "#2f7ed8", "#d9822b", "#8a6fc7", "#7a8a99"
CONTROLS = {"random_init": RANDOM, "raw_input": RAW, "constant": CONSTANT}
# What colour says, the form of a line or a mark says, too.
_DASHES = {"random_init": "--", "raw_input": ":", "constant": "-."}
_STYLES = ("-", "--", "-.", ":")
_COLORS = matplotlib.color_sequences["petroff10"]  # chosen to be told apart in every colour vision
_MARKS = "os^DvPX*<>"
_BAD = "#d64545"
_MOST_POINTS = 250  # of a curve; about what its width can show
_MOST_DOTS = 512  # of a scatter
_RC: Any = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's resolution
    "svg.hashsalt": "jaxssl",  # the same numbers give the same bytes
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.2,
    "legend.frameon": False,
}


def curve(
    steps: Sequence[int],
    values: Sequence[float],
    *,
    title: str,
    controls: Mapping[str, float] | None = None,
    marks: bool = False,
) -> bytes:
    """One metric over the steps, as SVG.

    The axis is logarithmic where all values are positive and span a factor of 30. A curve of many
    points is drawn as the mean of equal parts, with their least and greatest values as a band.
    Steps with a value that is not finite are red lines.

    Args:
      steps: [N], increasing.
      values: [N].
      title: the metric's name.
      controls: name -> value of a horizontal line, e.g. "random_init" and "raw_input".
      marks: draw each point; for the few points of evaluations.

    Raises:
      ValueError: `steps` and `values` differ in length.
    """
    x, y = np.asarray(steps, float), np.asarray(values, float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"steps and values: found shapes {x.shape} and {y.shape}, expected [N]")
    finite = np.isfinite(y)
    broken, x, y = x[~finite], x[finite], y[finite]
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(3.6, 2.3)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        if len(y) > _MOST_POINTS:
            parts = _equal_parts(len(y))
            low, high = [y[p].min() for p in parts], [y[p].max() for p in parts]
            x, y = (np.array([a[p].mean() for p in parts]) for a in (x, y))
            axes.fill_between(x, low, high, color=TRAINED, alpha=0.25, linewidth=0)
        axes.plot(x, y, color=TRAINED, linewidth=1.5, marker="o" if marks else "", markersize=4)
        if len(y) and y.min() > 0 and y.max() > 30 * y.min():
            axes.set_yscale("log")
        for step in broken[:50]:
            axes.axvline(step, color=_BAD, linewidth=1)
        shown = {k: v for k, v in (controls or {}).items() if np.isfinite(v)}
        for name, value in shown.items():
            color = CONTROLS.get(name, INK)
            label = name.replace("_", " ")
            dashes = _DASHES.get(name, "--")
            axes.axhline(value, color=color, linewidth=1.5, linestyle=dashes, label=label)
        if shown:
            # Under the axis: inside, it would hide the very lines it names.
            axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.12), ncols=2, fontsize=8)
        _step_axis(axes)
        return _svg(figure)


def curves(series: Mapping[str, tuple[Sequence[int], Sequence[float]]], *, title: str) -> bytes:
    """One metric of several runs over the steps, as SVG; values that are not finite are left out.

    Args:
      series: run -> (steps [N], values [N]), steps increasing; means of equal parts where N is
        large.
      title: the metric's name.
    """
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(5.4, 3.4)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        seen = []
        for i, (name, (steps, values)) in enumerate(series.items()):
            x, y = np.asarray(steps, float), np.asarray(values, float)
            x, y = x[np.isfinite(y)], y[np.isfinite(y)]
            if len(y) > _MOST_POINTS:
                x, y = (np.array([a[p].mean() for p in _equal_parts(len(y))]) for a in (x, y))
            mark = _MARKS[i % 10] if len(y) <= 30 else ""
            axes.plot(
                x,
                y,
                label=name,
                color=_COLORS[i % 10],
                linestyle=_STYLES[i % 4],
                linewidth=1.5,
                marker=mark,
                markersize=4,
            )
            seen.append(y)
        every = np.concatenate(seen) if seen else np.zeros(0)
        if len(every) and every.min() > 0 and every.max() > 30 * every.min():
            axes.set_yscale("log")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=1, fontsize=8)
        _step_axis(axes)
        return _svg(figure)


def scatter(points: NDArray, labels: NDArray, names: Sequence[str], *, title: str) -> bytes:
    """Points [N, 2] coloured by label [N], as SVG; a legend names up to 20 labels."""
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(3.6, 3.1)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        kinds = np.unique(labels)
        few = len(kinds) <= 20
        for i, kind in enumerate(kinds):
            chosen = points[labels == kind]
            color = _COLORS[i % 10] if few else matplotlib.colormaps["hsv"](i / len(kinds))
            # The second ten have the first ten's colours, with other marks.
            mark = _MARKS[(i + 5 * (i // 10)) % 10]
            # Dots as one picture inside the drawing: thousands of vector dots are slow to show.
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=13,
                marker=mark,
                color=color,
                linewidths=0,
                label=label_name(int(kind), names),
                rasterized=True,
            )
        axes.set_xticks([])
        axes.set_yticks([])
        if few:
            axes.legend(
                loc="center left",
                bbox_to_anchor=(1.0, 0.5),
                fontsize=8,
                markerscale=2,
                handletextpad=0.1,
            )
        return _svg(figure)


def spectrum(eigenvalues: Mapping[str, NDArray], width: float = 3.6) -> bytes:
    """Eigenvalues of covariances, each as a share of its sum, on log axes, as SVG.

    A flat line uses all directions alike; a cliff means that most directions hold nothing.

    Args:
      eigenvalues: name -> [D], greatest first.
      width: of the drawing in inches.
    """
    named = {"trained": TRAINED, "random init": RANDOM, "raw input": RAW}
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(width, 3.6)
        axes.set_title("covariance spectrum", loc="left", fontsize=10, fontweight="bold")
        for i, (name, values) in enumerate(eigenvalues.items()):
            share = values / values.sum() if values.sum() > 0 else values
            # What is left below is rounding of float32 sums, not a direction in use.
            share = share[share > 1e-9]
            color = named.get(name, _COLORS[i % 10])
            label = f"{name} (effective rank {effective_rank(values):.1f})"
            places = np.arange(1, len(share) + 1)
            axes.plot(places, share, color=color, linestyle=_STYLES[i % 4], label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("direction", loc="left")
        axes.set_ylabel("share of variance")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), fontsize=8)
        return _svg(figure)


def confusion(counts: NDArray, names: Sequence[str], *, title: str) -> bytes:
    """How samples of each label were classified, as SVG; numbers in the cells up to 20 labels.

    Args:
      counts: int [K, K], rows by true label, columns by predicted one; a cell's shade is its share
        of its row.
      names: [K].
    """
    count = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with matplotlib.rc_context({**_RC, "axes.grid": False}):
        side = 3.0 + 0.13 * min(count, 20)
        figure, axes = _figure(side + 0.3, side)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        shades = matplotlib.colormaps["Blues"]
        axes.imshow(shares, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true label")
        if count > 20:
            axes.set_xticks([])
            axes.set_yticks([])
            return _svg(figure)
        tall = max(map(len, names)) > 2
        axes.set_xticks(range(count), names, rotation=90 if tall else 0)
        axes.set_yticks(range(count), names)
        for row, column in np.argwhere(counts):
            ink = "#ffffff" if shares[row, column] > 0.5 else "#1b2a3a"
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color=ink,
            )
        return _svg(figure)


def effective_rank(eigenvalues: NDArray) -> float:
    """exp of the entropy of the eigenvalues' shares: D where all are equal, 1 where one is left.

    Reference: Roy and Vetterli, 2007, The effective rank, here of a covariance.

    >>> effective_rank(np.ones(8)), effective_rank(np.eye(8)[0]), effective_rank(np.zeros(8))
    (8.0, 1.0, 0.0)
    """
    kept = eigenvalues[eigenvalues > 0]
    if not len(kept):
        return 0.0
    share = kept / kept.sum()
    return round(float(np.exp(-(share * np.log(share)).sum())), 6)


def principal(features: NDArray) -> tuple[NDArray, NDArray]:
    """Coordinates [N, 2] on the first two principal axes, and all eigenvalues, greatest first.

    Non-finite features count as 0, so that a broken run still has a picture.
    """
    x = np.nan_to_num(features.reshape(len(features), -1).astype(np.float64), posinf=0, neginf=0)
    x = x - x.mean(0)
    # Of the two square matrices with the same eigenvalues, the smaller one.
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    axes = (vectors * np.sqrt(values))[:, :2] if wide else x @ vectors[:, :2]
    points = np.zeros((len(x), 2))
    points[:, : axes.shape[1]] = axes
    return points, values / max(len(x) - 1, 1)


def neighbour_map(features: NDArray) -> NDArray:
    """Coordinates [N, 2] that keep neighbours by cosine together, by t-SNE; the same every time.

    Distances between groups, and their sizes, mean nothing. van der Maaten and Hinton (2008),
    Visualizing data using t-SNE, Journal of Machine Learning Research 9.

    Args:
      features: [N, D]; what is not finite counts as 0.
    """
    # Here, not above: the import takes a second that only a page needs.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    x = np.nan_to_num(features.reshape(len(features), -1).astype(np.float32), posinf=0, neginf=0)
    start, _ = principal(x)
    if len(x) < 5 or not start[:, 0].std() > 0:
        return start
    size = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.maximum(size, 1e-12)
    start = (1e-4 * start / start[:, 0].std()).astype(np.float32)
    # Of vectors of length one, Euclidean distances order neighbours as cosines do.
    tsne = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init=start, random_state=0)
    # Sums of several threads come in any order, and t-SNE magnifies their rounding.
    with threadpool_limits(1):
        found: NDArray = tsne.fit_transform(x)
    return found


def spread(n: int, most: int = _MOST_DOTS) -> NDArray:
    """Up to `most` of the indices 0 .. n - 1, evenly spaced: the same ones every time."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def thumbnail(image: NDArray, most: int = 96) -> bytes:
    """A uint8 image [H, W, C] as PNG, shrunk to `most` pixels a side; two channels show the first.

    Raises:
      ValueError: it is not a uint8 image.
    """
    out = io.BytesIO()
    _shrunk(image, most).save(out, "PNG", optimize=True)
    return out.getvalue()


def pixels(images: NDArray, most: int = 32) -> NDArray:
    """uint8 images [N, H, W, C] as rows [N, D] of pixels, at `most` pixels a side or fewer."""
    return np.stack([np.asarray(_shrunk(image, most)).ravel() for image in images])


def _shrunk(image: NDArray, most: int) -> Image.Image:
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(f"image: found {image.dtype} {image.shape}, expected uint8 [H, W, C]")
    picture = Image.fromarray(image[..., :3] if image.shape[-1] >= 3 else image[..., 0])
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    return picture


def label_name(label: int, names: Sequence[str]) -> str:
    """The name of a label, or its number where it has none."""
    return str(names[label]) if 0 <= label < len(names) else str(label)


def _equal_parts(n: int) -> list[NDArray]:
    """Indices in up to _MOST_POINTS runs; unequal ones would smooth one stretch more."""
    return np.split(np.arange(n), range(0, n, -(-n // _MOST_POINTS))[1:])


def _step_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.02)
    axes.set_xlabel("step", loc="left")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    # No date: the same numbers give the same bytes.
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()
