"""How much of single training samples an encoder has memorised, from two runs on parts of a set.

    python -m jaxssl.commands.memorisation --seen=WORKDIR --unseen=WORKDIR
                            [--checkpoint=STEP] [--stage=NAME]
                            [--pairs=clean|augmentations] [--augmentation=GROUP|published]
                            [--count=K] [--limit=N] [--seed=S] [--out=DIR]
                            [--config.evals.output=NAME ...]

Two runs of one config that differ in `data.ranges` (and maybe `train.seed`) alone: the samples of
the first only are the candidates. Prints the groups' scores, and leaves `sslmem.json` and
`sslmem.npz` in `--out`, or in the workdir of `--seen`: there, every sample's score by its stored
position, from which a run without the most memorised samples can be made.
"""

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxssl.devices import runtime

if __name__ == "__main__":
    runtime.with_large_pages()  # before anything large is imported: it starts the process anew

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from jaxssl import modalities
from jaxssl.config import command_line as cli
from jaxssl.config import load as config
from jaxssl.config.errors import ConfigError, near
from jaxssl.data import Part, Source
from jaxssl.data.images import image_fields
from jaxssl.evals.features import extract, replicate, subset
from jaxssl.evals.subject import Subject
from jaxssl.losses.vectors import unit
from jaxssl.report.writers import write_json
from jaxssl.run import runs
from jaxssl.run.evaluator import Evaluator

Images = Callable[[jax.Array, jax.Array], tuple[jax.Array, ...]]
USAGE = (
    "python -m jaxssl.commands.memorisation --seen=WORKDIR --unseen=WORKDIR "
    "[--checkpoint=STEP] [--stage=NAME] [--pairs=clean|augmentations] "
    "[--augmentation=GROUP|published] [--count=K] [--limit=N] "
    "[--seed=S] [--out=DIR] [--config.evals.KEY=VALUE ...]"
)
PAIRS = ("clean", "augmentations")
GROUPS = ("shared", "candidates", "independent", "external")
# Of the published measurement; "published" in place of a group of the run's own views.
COLOURS = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
PUBLISHED = {"crop": {}, "flip": 0.5, "jitter": {**COLOURS, "probability": 0.8}, "grayscale": 0.2}
MAY_DIFFER = ("data.ranges", "train.seed", "name")


class Scores(NamedTuple):
    """Memorisation, sample by sample; every field is [N].

    Attributes:
      group: one of GROUPS.
      stored: position in the training split, of "external" in the test split.
      seen, unseen: alignment under the encoder of either run.
      raw: unseen - seen, in [-2, 2].
      normalised: raw / (max raw - min raw).
    """

    group: NDArray
    stored: NDArray
    seen: NDArray
    unseen: NDArray
    raw: NDArray
    normalised: NDArray


def sslmem(seen: NDArray, unseen: NDArray) -> tuple[NDArray, NDArray]:
    """The memorisation score of samples, raw and normalised, from two encoders' alignments.

        m(x) = l(g, x) - l(f, x),        m(x) / (max_x m - min_x m)

    f has been trained on x and g has not; l is `alignment`. m > 0 where f aligns x better. Of one
    run each, the expectation over runs is estimated by one draw. The normalised score depends on
    all samples that are scored: one outlier changes every value, so compare raw scores over sets.
    Wang et al., 2024, "Memorization in self-supervised learning improves downstream
    generalization", arXiv 2401.12233.

    Args:
      seen: l(f, x) [N].
      unseen: l(g, x) [N].

    Returns:
      (m, normalised m), [N] each; the latter is zero where all m are equal.

    >>> raw, normalised = sslmem(np.array([0.1, 0.3, 0.2]), np.array([0.6, 0.2, 0.5]))
    >>> raw.round(4).tolist(), normalised.round(4).tolist()
    ([0.5, -0.1, 0.3], [0.8333, -0.1667, 0.5])
    """
    raw = np.asarray(unseen, np.float64) - np.asarray(seen, np.float64)
    spread = np.ptp(raw)
    return raw, raw / spread if spread > 0 else np.zeros_like(raw)


def alignment(features: jax.Array, pairs: str = "clean") -> jax.Array:
    """The mean distance of views of a sample, l(h, x) = mean over pairs |z_i - z_j|, z of length 1.

    Args:
      features: [V, B, ...] of an encoder h, flattened to [V, B, D]; the first view is the clean
        sample where `pairs` is "clean".
      pairs: "clean", the first view with each other one; "augmentations", every view with every.

    Returns:
      [B], 0 ... 2; scale and rotations of the features do not move it.
    """
    z = unit(features.reshape(*features.shape[:2], -1))
    first, second = np.triu_indices(len(z), 1)
    if pairs == "clean":
        first, second = first[: len(z) - 1], second[: len(z) - 1]
    distances = [jnp.linalg.norm(z[i] - z[j], axis=-1) for i, j in zip(first, second, strict=True)]
    return jnp.stack(distances).mean(0)


def compare(groups: Mapping[str, NDArray]) -> dict[str, dict[str, float]]:
    """Each group's mean score, and Welch's test that the candidates' mean is above it.

    Args:
      groups: "candidates" and others -> raw scores, at least two samples each.

    Returns:
      group -> {"samples", "mean", "standard_error" of the mean} and, but for the candidates, {"t",
      "p"}, one-sided, of unequal variances; NaN where no score varies.
    """
    found: dict[str, dict[str, float]] = {}
    for name, scores in groups.items():
        error = float(np.std(scores, ddof=1) / np.sqrt(len(scores)))
        found[name] = {"samples": len(scores), "mean": float(np.mean(scores))}
        found[name]["standard_error"] = error
        if name != "candidates":
            t = p = np.nan
            if max(np.ptp(scores), np.ptp(groups["candidates"])) > 0:
                t, p = stats.ttest_ind(
                    groups["candidates"], scores, equal_var=False, alternative="greater"
                )
            found[name] |= {"t": float(t), "p": float(p)}
    return found


def measure(
    seen: runs.Run,
    unseen: runs.Run,
    *,
    pairs: str = "clean",
    augmentation: str = "",
    count: int = 5,
    limit: int = 0,
    seed: int = 0,
) -> Scores:
    """Scores of the samples of two runs' training sets, and of the test split, in four groups.

    "shared" samples were seen by both encoders, "candidates" by the first, "independent" by the
    second alone, "external" by neither. A sample's augmentations depend on `seed` and its stored
    position alone, so both encoders see the same images; encoders run in evaluation mode, on their
    `evals.output`.

    Args:
      seen, unseen: of `jaxssl.run.runs.load`.
      pairs: one of PAIRS.
      augmentation: a group of the first run's views; "": its first with a random transform;
        "published": crop, flip, colours and grey of the published measurement.
      count: augmentations of a sample.
      limit: the most samples of a group, chosen at random; 0 is all.
      seed: of the augmentations.

    Raises:
      ConfigError: the runs differ in more than their samples, a group has fewer than two samples,
        or a field is none of those above.
    """
    if pairs not in PAIRS:
        raise ConfigError(f"--pairs: found {pairs!r}{near(pairs, PAIRS)}")
    least = 2 if pairs == "augmentations" else 1
    if count < least:
        raise ConfigError(f"--count: found {count}, expected at least {least} for pairs={pairs}")
    if limit < 0 or limit == 1:
        raise ConfigError(f"--limit: found {limit}, expected at least 2, or 0 for all")
    whole = _check_twins(seen, unseen)
    judged = [_subject(run) for run in (seen, unseen)]
    _, field = modalities.evaluated(seen.program.config, whole.fields)
    if field.kind != "image":
        raise ConfigError(f"--seen: found data of kind {field.kind!r}, expected images")
    make = augment(seen.program.config, augmentation, count, seed, field.shape)
    parts = _parts(seen.program.source, unseen.program.source, whole, judged[0].test_source, limit)
    found: dict[str, list[NDArray]] = {"group": [], "stored": [], "seen": [], "unseen": []}
    for name, part in parts.items():
        found["group"].append(np.full(len(part), name))
        found["stored"].append(part.positions)
        for which, subject in zip(("seen", "unseen"), judged, strict=True):
            found[which].append(alignments(subject, part, make, pairs))
    columns = {name: np.concatenate(values) for name, values in found.items()}
    raw, normalised = sslmem(columns["seen"], columns["unseen"])
    return Scores(**columns, raw=raw, normalised=normalised)


def augment(
    settings: Any, augmentation: str, count: int, seed: int, shape: tuple[int, ...]
) -> Images:
    """(images uint8 [B, H, W, C], stored [B]) -> `count` augmentations, uint8, of each; jitted.

    The transforms of a view group, without normalising; what shares one view among several (turns,
    tiles) is left out.

    Args:
      settings: the config, whose `views` and `evals.size` count.
      augmentation: as of `measure`.
      count: K.
      seed: of all draws.
      shape: of an image.

    Returns:
      a function that gives a tuple of K arrays [B, S, S, C], S the pixels that the encoder takes.

    Raises:
      ConfigError: no such group, or none with a random transform.
    """
    apart = ("count", "size", "turns", "tiles")
    groups = {"published": dict(PUBLISHED)} | {
        name: {
            field: x
            for field, x in group.items()
            if field not in apart and x is not None and x != 0
        }
        for name, group in sorted(settings.views.to_dict().items())
    }
    if shape[-1] == 1:  # what has no colour loses none
        groups["published"] |= {"jitter": {"brightness": 0.8, "contrast": 0.8, "probability": 0.8}}
        del groups["published"]["grayscale"]
    random = [name for name, transforms in groups.items() if transforms]
    name = augmentation or (random[1] if len(random) > 1 else "")
    if name not in random:
        raise ConfigError(
            f"--augmentation: found {name!r}, expected views with a random transform"
            f"{near(name, random)}"
        )
    size = settings.evals.size or shape[-2]
    drawn = {name: {"count": count, "size": size, **groups[name]}}
    draw = modalities.build(drawn, image_fields(shape), {"mean": 0.0, "std": 1.0})

    @jax.jit
    def make(images: jax.Array, stored: jax.Array) -> tuple[jax.Array, ...]:
        drawn = draw(jax.random.key(seed), {"image": images, "index": stored})[name]
        pixels = jnp.round(255 * jnp.clip(drawn, 0, 1)).astype(jnp.uint8)
        return tuple(pixels[:, k] for k in range(count))

    return make


def alignments(subject: Subject, part: Part, make: Images, pairs: str) -> NDArray:
    """`alignment` [N] of an encoder on every sample of a part, with `augment`'s images."""
    with jax.set_mesh(subject.program.mesh):
        stored, of = replicate(part.positions.astype(np.int32)), subject.field[0]

        def encode(batch: Mapping[str, jax.Array]) -> jax.Array:
            images = make(batch[of], stored[batch["index"]])
            if pairs == "clean":
                images = (batch[of], *images)
            features = tuple(subject.encode({**batch, of: x}) for x in images)
            found: jax.Array = _alignment(features, pairs)
            return found[:, None]

        return extract(
            encode,
            part,
            batch_size=subject.program.config.evals.batch_size,
            mesh=subject.program.mesh,
        ).x[:, 0]


@functools.partial(jax.jit, static_argnames="pairs")
def _alignment(features: tuple[jax.Array, ...], pairs: str) -> jax.Array:
    return alignment(jnp.stack(features), pairs)


def _check_twins(seen: runs.Run, unseen: runs.Run) -> Source:
    """The training split that both runs' samples are of."""
    one, other = (config.to_dict(run.program.config) for run in (seen, unseen))
    for line in config.differences(one, other):
        if line.partition(":")[0] not in MAY_DIFFER:
            raise ConfigError(f"--unseen: {line}; expected runs that differ in data.ranges alone")
    wholes = [_whole(run.program.source) for run in (seen, unseen)]
    if wholes[0].fingerprint != wholes[1].fingerprint:
        raise ConfigError(
            f"--unseen: data.path: the samples of {wholes[1].name} are not those of --seen"
        )
    return wholes[0]


def _whole(source: Source) -> Source:
    return source.whole if isinstance(source, Part) else source


def _positions(source: Source) -> NDArray:
    return source.positions if isinstance(source, Part) else np.arange(len(source))


def _parts(
    seen: Source, unseen: Source, whole: Source, test: Source, limit: int
) -> dict[str, Part]:
    one, other = _positions(seen), _positions(unseen)
    found = (np.intersect1d(one, other), np.setdiff1d(one, other), np.setdiff1d(other, one))
    positions = dict(zip(GROUPS, (*found, np.arange(len(test))), strict=True))
    for name in ("candidates", "independent"):
        if len(positions[name]) < 2:
            raise ConfigError(
                f"data.ranges: found {len(positions[name])} {name} samples, which only one of the "
                "two runs was trained on; expected at least 2"
            )
    return {
        name: Part(test if name == "external" else whole, where[subset(len(where), limit)])
        for name, where in positions.items()
        if len(where) > 1
    }


def _subject(run: runs.Run) -> Subject:
    evaluator = Evaluator(run.program)
    if not evaluator.active:
        raise ConfigError(f"data.source: {run.program.source.name} has no labels to evaluate with")
    return evaluator.subject("trained", run.state)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 2 bad input."""
    try:
        flags, overrides = _parser().parse(argv)
        load = functools.partial(
            runs.load, checkpoint=flags.checkpoint, stage=flags.stage, overrides=overrides
        )
        seen, unseen = load(flags.seen), load(flags.unseen)
        fields = {
            name: getattr(flags, name)
            for name in ("pairs", "augmentation", "count", "limit", "seed")
        }
        scores = measure(seen, unseen, **fields)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if jax.process_index() == 0:
        groups = compare({n: scores.raw[scores.group == n] for n in dict.fromkeys(scores.group)})
        spread = float(np.ptp(scores.raw))
        found: dict[str, Any] = {"seen": seen.folder, "unseen": unseen.folder, **fields}
        found |= {"steps": [int(run.state.step) for run in (seen, unseen)], "spread": spread}
        found |= {"output": seen.program.config.evals.output, "groups": groups}
        folder = pathlib.Path(flags.out) if flags.out else seen.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sslmem.json", found)
        np.savez(folder / "sslmem.npz", **scores._asdict())
        print(table(groups, spread))
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="jaxssl.commands.memorisation", usage=USAGE)
    for name in ("--seen", "--unseen"):
        parser.add_argument(name, required=True)
    parser.add_argument("--pairs", default="clean")
    for name in ("--stage", "--augmentation", "--out"):
        parser.add_argument(name, default="")
    parser.add_argument("--checkpoint", type=int)
    parser.add_argument("--count", type=int, default=5)
    for name in ("--limit", "--seed"):
        parser.add_argument(name, type=int, default=0)
    return parser


def table(groups: Mapping[str, Mapping[str, float]], spread: float) -> str:
    """What `compare` found, for people; `spread` is that of all raw scores."""
    rows = [("group", "samples", "mean score", "normalised", "candidates above: t", "p")]
    for name, found in groups.items():
        normalised = found["mean"] / spread if spread > 0 else 0.0
        scores = (f"{found['mean']:+.4f} ± {found['standard_error']:.4f}", f"{normalised:+.4f}")
        test = (f"{found['t']:.2f}", f"{found['p']:.2g}") if "t" in found else ("", "")
        rows.append((name, str(int(found["samples"])), *scores, *test))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
