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
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

INK = "#7f7f81"
TRAINED, RANDOM, RAW, CONSTANT = "#2f7ed8", "#d9822b", "#8a6fc7", "#7a8a99"
CONTROLS = {"random_init": RANDOM, "raw_input": RAW, "constant": CONSTANT}
_BAD = "#d64545"
_MOST_POINTS = 250  # of a curve; about what its width can show
_MOST_DOTS = 1000  # of a scatter
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
            # Equal parts: unequal ones would smooth one stretch more than another.
            parts = np.split(np.arange(len(y)), range(0, len(y), -(-len(y) // _MOST_POINTS))[1:])
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
            axes.axhline(value, color=color, linewidth=1.5, linestyle="--", label=label)
        if shown:
            # Under the axis: inside, it would hide the very lines it names.
            axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.12), ncols=2, fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.margins(x=0.02)
        axes.set_xlabel("step", loc="left")
        return _svg(figure)


def scatter(points: NDArray, labels: NDArray, names: Sequence[str], *, title: str) -> bytes:
    """Points [N, 2] coloured by label [N], as SVG; a legend names up to 20 labels."""
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(3.6, 3.1)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        kinds = np.unique(labels)
        few = len(kinds) <= 20
        colors = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "tab20" if few else "hsv"]
        for i, kind in enumerate(kinds):
            chosen = points[labels == kind]
            color = colors(i) if few else colors(i / len(kinds))
            name = label_name(int(kind), names)
            # Dots as one picture inside the drawing: thousands of vector dots are slow to show.
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=9,
                color=color,
                linewidths=0,
                label=name,
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


def spectrum(eigenvalues: Mapping[str, NDArray]) -> bytes:
    """Eigenvalues of covariances, each as a share of its sum, on a log axis, as SVG.

    A flat line uses all directions alike; a cliff means that most directions hold nothing.

    Args:
      eigenvalues: name -> [D], greatest first.
    """
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(3.6, 3.1)
        axes.set_title("covariance spectrum", loc="left", fontsize=10, fontweight="bold")
        for (name, values), color in zip(eigenvalues.items(), (TRAINED, RAW, RANDOM)):
            share = values / values.sum() if values.sum() > 0 else values
            # What is left below is rounding of float32 sums, not a direction in use.
            share = share[share > 1e-9]
            label = f"{name} (effective rank {effective_rank(values):.1f})"
            axes.plot(np.arange(1, len(share) + 1), share, color=color, label=label)
        axes.set_yscale("log")
        axes.set_xlabel("direction", loc="left")
        axes.set_ylabel("share of variance")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="upper right", fontsize=8)
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


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    # No date: the same numbers give the same bytes.
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()
