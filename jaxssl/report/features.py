"""What features look like: neighbours, maps of them, their spectrum, what is taken for what."""

import numpy as np
from numpy.typing import NDArray

from jaxssl.evals.probes import knn
from jaxssl.report import plots
from jaxssl.report.page import drawing, picture, table, text
from jaxssl.report.samples import Pictures, Samples, neighbours

_QUERIES, _NEIGHBOURS = 10, 8
_MOST_CONFUSED = 5


def pictures(shown: Pictures) -> list[str]:
    """title -> (captions, uint8 [n, K, h, w, C]): a row for each caption, a column a sample."""
    html = ["<h2>Pictures</h2>"] if shown else []
    for title, (captions, images) in shown.items():
        cells = lambda k, images=images: "".join(
            f"<td>{picture(plots.thumbnail(sample[k]), '')}</td>" for sample in images
        )
        rows = [f"<tr><td>{text(c)}</td>{cells(k)}</tr>" for k, c in enumerate(captions)]
        html += [
            f"<h3>{text(title)}</h3>",
            f'<div class="scroll"><table class="near">{"".join(rows)}</table></div>',
        ]
    return html


def nearest(samples: Samples) -> list[str]:
    """Held-out images and their neighbours in the bank."""
    # The first of each label, then the second of each, ...: rows that show every label.
    seen: dict[int, int] = {}
    turns = []
    for i, label in enumerate(samples.labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], label, i))
    queries = [i for _, _, i in sorted(turns)[:_QUERIES]]
    found, _ = neighbours(samples.features[queries], samples.bank_features, _NEIGHBOURS)
    rows, right = [], 0
    for query, near in zip(queries, found):
        label = int(samples.labels[query])
        cells = [_image(samples.images[query], label, samples, "")]
        for i in near:
            other = int(samples.bank_labels[i])
            right += other == label
            kind = "" if other == label else "bad"
            cells.append(_image(samples.bank_images[i], other, samples, kind))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return [
        "<h2>Nearest neighbours</h2>",
        '<p class="soft">Held-out images (left of the line) and what the features find nearest in '
        f"the bank by cosine. {right} of {found.size} share the label; the others have a red frame "
        "and &#10007;.</p>",
        f'<div class="scroll"><table class="near">{"".join(rows)}</table></div>',
    ]


def maps(samples: Samples) -> list[str]:
    """The bank in two dimensions, by PCA and by t-SNE, and the covariance's spectrum."""
    kept = plots.spread(len(samples.bank_features))
    labels, names = samples.bank_labels[kept], samples.label_names
    features, raw = samples.bank_features[kept], plots.pixels(samples.bank_images[kept])
    points, eigenvalues = plots.principal(features)
    raw_points, raw_eigenvalues = plots.principal(raw)
    spectra = {"trained": eigenvalues}
    if samples.random_features is not None:
        spectra["random init"] = plots.principal(samples.random_features[kept])[1]
    spectra["raw input"] = raw_eigenvalues
    near = plots.neighbour_map(features)
    return [
        "<h2>Features</h2>",
        f'<p class="soft">{len(kept):,} samples of the bank, coloured and marked by label, of the '
        "trained encoder and of their pixels (at 32 a side or fewer). PCA keeps distances as far "
        "as two axes can; t-SNE keeps neighbours, while sizes of groups and gaps between them say "
        "nothing. The spectrum says how evenly directions are used: the effective rank is exp of "
        "the entropy of the shares.</p>",
        '<div class="charts">',
        drawing(plots.scatter(points, labels, names, title="trained features, PCA")),
        drawing(plots.scatter(near, labels, names, title="trained features, t-SNE")),
        drawing(plots.scatter(raw_points, labels, names, title="raw input, PCA")),
        drawing(plots.spectrum(spectra)),
        "</div>",
    ]


def votes(samples: Samples) -> NDArray:
    """The label [n] of each held-out sample by the vote of `probes.knn`, here in numpy.

    argmax over c of the sum, over the k nearest i with y_i = c, of exp(cos(x, x_i) / T)
    """
    found, cosines = neighbours(samples.features, samples.bank_features, _voters(samples))
    labels = np.asarray(samples.bank_labels)[found]
    # Shifted by the nearest: the same vote, and no overflow.
    weights = np.exp((cosines - cosines[:, :1]) / knn.PROTOCOL["temperature"])
    kinds = np.unique(labels)
    ballots = np.stack([(weights * (labels == kind)).sum(1) for kind in kinds], 1)
    return kinds[ballots.argmax(1)]


def _voters(samples: Samples) -> int:
    return min(int(knn.PROTOCOL["k"]), len(samples.bank_labels))


def confusion(samples: Samples) -> list[str]:
    """What the shown held-out samples are taken for by the vote of their neighbours."""
    guess, truth = votes(samples), np.asarray(samples.labels)
    kinds = np.unique(np.concatenate([guess, truth]))
    counts = np.zeros((len(kinds), len(kinds)), int)
    np.add.at(counts, (np.searchsorted(kinds, truth), np.searchsorted(kinds, guess)), 1)
    names = [plots.label_name(int(kind), samples.label_names) for kind in kinds]
    wrong = np.where(np.eye(len(kinds), dtype=bool), 0, counts)
    most = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    places = [np.unravel_index(i, wrong.shape) for i in most if wrong.flat[i]]
    rows = [[text(names[a]), text(names[b]), str(wrong[a, b])] for a, b in places]
    right = int(np.trace(counts))
    head = ["label", "taken for", "samples"]
    return [
        "<h2>Confusions</h2>",
        f'<p class="soft">The {_voters(samples)} nearest of {len(samples.bank_labels):,} samples '
        f"of the bank vote on {len(truth):,} held-out ones; {right:,} are right. Shades are shares "
        "of a row. The evaluations ask the whole bank.</p>",
        '<div class="charts">',
        drawing(plots.confusion(counts, names, title="kNN on the samples of this page")),
        table(head, rows) if rows else '<p class="soft">None is wrong.</p>',
        "</div>",
    ]


def _image(image: NDArray, label: int, samples: Samples, kind: str) -> str:
    name = plots.label_name(label, samples.label_names)
    mark = " &#10007;" if kind else ""
    inner = picture(plots.thumbnail(image), name)
    return f'<td><div class="{kind}">{inner}{text(name)}{mark}</div></td>'
