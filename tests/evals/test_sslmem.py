"""Memorisation scores: the estimator on numbers that are known, and the command on two runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from scipy import stats

from jaxssl import data
from jaxssl.commands import memorisation as sslmem
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.program import Program
from jaxssl.report.writers import read_json, write_json
from jaxssl.run import runs
from jaxssl.run.checkpoint import Checkpoints

RANGES = {"f": ((0, 40), (60, 100)), "g": ((0, 40), (120, 170)), "twin": ((0, 40), (120, 170))}
SEEDS = {"f": 0, "g": 1, "twin": 0}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.smoke
def test_the_score_is_the_difference_over_its_range():
    raw, normalised = sslmem.sslmem(np.zeros(3), np.array([0.5, -0.1, 0.3]))
    np.testing.assert_allclose(raw, [0.5, -0.1, 0.3])
    np.testing.assert_allclose(normalised, [0.8333, -0.1667, 0.5], atol=1e-4)
    f, g = np.abs(numbers(2, 9))
    swapped = sslmem.sslmem(g, f)
    for score, mirror in zip(sslmem.sslmem(f, g), swapped, strict=True):
        np.testing.assert_array_equal(score, -mirror)
    for score in sslmem.sslmem(f, f):
        assert not score.any() and np.isfinite(score).all()


def test_an_outlier_moves_every_normalised_score_and_no_raw_one():
    f, g = np.zeros(4), np.array([0.5, -0.1, 0.3, 1.9])
    few, all_of_them = sslmem.sslmem(f[:3], g[:3]), sslmem.sslmem(f, g)
    np.testing.assert_array_equal(few[0], all_of_them[0][:3])
    assert (np.abs(all_of_them[1][:3]) < np.abs(few[1])).all()


@pytest.mark.parametrize("pairs", sslmem.PAIRS)
def test_alignment_is_the_mean_distance_of_unit_vectors(pairs):
    views = numbers(4, 6, 3, 5)  # of tokens, which count as one vector
    z = views.reshape(4, 6, 15)
    z = z / np.linalg.norm(z, axis=-1, keepdims=True)
    pairs_of = {
        "clean": [(0, 1), (0, 2), (0, 3)],
        "augmentations": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)],
    }
    expected = np.mean([np.linalg.norm(z[i] - z[j], axis=-1) for i, j in pairs_of[pairs]], 0)
    found = sslmem.alignment(jnp.asarray(views), pairs)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    scaled = views.reshape(4, 6, 15) * np.float32(37)
    rotation = np.linalg.qr(numbers(15, 15, seed=1))[0]
    np.testing.assert_allclose(sslmem.alignment(scaled @ rotation, pairs), expected, rtol=1e-4)


def test_alignment_of_identical_views_is_zero_and_of_opposite_ones_two():
    z = numbers(1, 6, 8)
    same = sslmem.alignment(jnp.asarray(np.concatenate([z] * 3)), "augmentations")
    np.testing.assert_array_equal(same, np.zeros(6))
    opposite = sslmem.alignment(jnp.asarray(np.concatenate([z, -3 * z])))
    np.testing.assert_allclose(opposite, 2 * np.ones(6), rtol=1e-6)


def test_groups_are_compared_by_a_one_sided_welch_test():
    rng = np.random.default_rng(0)
    groups = {
        "shared": rng.normal(0, 0.1, 60),
        "candidates": rng.normal(0.1, 0.2, 40),
        "independent": rng.normal(0.3, 0.1, 50),
    }
    found = sslmem.compare(groups)
    assert found["candidates"].keys() == {"samples", "mean", "standard_error"}
    a, b = groups["candidates"], groups["shared"]
    error = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 60)
    assert found["shared"]["t"] == pytest.approx((a.mean() - b.mean()) / error)
    pooled = stats.ttest_ind(a, b, alternative="greater").pvalue
    assert found["shared"]["p"] < 0.01 and found["shared"]["p"] != pytest.approx(pooled, rel=0.01)
    assert found["independent"]["t"] < 0 and found["independent"]["p"] > 0.99
    assert found["candidates"]["standard_error"] == pytest.approx(a.std(ddof=1) / np.sqrt(40))
    still = sslmem.compare({"candidates": np.zeros(3), "shared": np.zeros(4)})
    assert np.isnan(still["shared"]["p"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Workdirs at random init: f, g of another init, and a twin of f with the samples of g."""
    root = tmp_path_factory.mktemp("pair")
    changes = {"views.global.flip": 0.5, "evals.linear": None, "train.global_batch": 16}
    for name, ranges in RANGES.items():
        own = {"data.ranges": ranges, "train.seed": SEEDS[name]}
        config = tiny.load(root, **changes, **own)
        (root / name).mkdir()
        write_json(root / name / "config.json", configs.to_dict(config))
        if name == "twin":
            (root / name / "checkpoints").symlink_to(root / "f" / "checkpoints")
            continue
        checkpoints = Checkpoints(root / name / "checkpoints")
        checkpoints.save(Program(config).init(), wait=True)
        checkpoints.close()
    return root


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: runs.load(folders / name) for name in RANGES}


@pytest.fixture(scope="module")
def scores(loaded):
    return sslmem.measure(loaded["f"], loaded["g"], count=2, limit=30)


def keyed(scores, field="raw"):
    """(split, stored position) -> score."""
    split = np.where(scores.group == "external", "test", "train")
    return dict(zip(zip(split, scores.stored.tolist()), getattr(scores, field)))


def test_the_groups_are_who_saw_what(scores):
    where = {n: set(scores.stored[scores.group == n].tolist()) for n in sslmem.GROUPS}
    assert {n: len(found) for n, found in where.items()} == dict.fromkeys(sslmem.GROUPS, 30)
    assert where["shared"] < set(range(40)) and where["candidates"] < set(range(60, 100))
    assert where["independent"] < set(range(120, 170)) and where["external"] < set(range(500))
    assert np.ptp(scores.raw) > 0 and np.abs(scores.raw).max() <= 2
    np.testing.assert_allclose(scores.raw, scores.unseen - scores.seen, atol=1e-6)
    assert np.ptp(scores.normalised) == pytest.approx(1)


def test_runs_swapped_give_the_negative_under_the_same_positions(loaded, scores):
    swapped = sslmem.measure(loaded["g"], loaded["f"], count=2)
    mirror = keyed(swapped)
    for key, value in keyed(scores).items():  # of a subset of the samples: draws do not see it
        assert mirror[key] == pytest.approx(-value, abs=1e-6)


@pytest.mark.parametrize("pairs", sslmem.PAIRS)
def test_one_encoder_against_itself_has_memorised_nothing(loaded, pairs):
    """Other draws for the second encoder would show."""
    found = sslmem.measure(loaded["f"], loaded["twin"], pairs=pairs, count=2, limit=10)
    assert found.seen.min() > 0
    np.testing.assert_array_equal(found.raw, 0)
    np.testing.assert_array_equal(found.normalised, 0)


def test_the_augmentations_are_of_the_stored_sample(loaded):
    config = loaded["f"].program.config
    images = data.load(config.data, "test").rows(np.arange(4))["image"]
    make = sslmem.augment(config, "global", 3, 0, images.shape[1:])
    first = make(jnp.asarray(images), jnp.arange(4))
    assert len(first) == 3 and all(x.dtype == jnp.uint8 and x.shape == images.shape for x in first)
    turned = make(jnp.asarray(images[::-1]), jnp.arange(4)[::-1])
    for one, other in zip(first, turned, strict=True):
        np.testing.assert_array_equal(one, other[::-1])
    assert (np.asarray(first[0]) != np.asarray(first[1])).any()
    for colour in (jnp.asarray(images), jnp.asarray(np.repeat(images, 3, -1))):
        published = sslmem.augment(config, "published", 1, 0, colour.shape[1:])
        assert jax.eval_shape(published, colour, jnp.arange(4))[0].shape == colour.shape


def test_the_command_leaves_a_table_and_scores_by_position(folders, scores, tmp_path, capsys):
    flags = [f"--seen={folders / 'f'}", f"--unseen={folders / 'g'}", "--count=2", "--limit=30"]
    assert sslmem.main([*flags, f"--out={tmp_path / 'new'}"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in sslmem.GROUPS) and "normalised" in out
    found = read_json(tmp_path / "new" / "sslmem.json")
    assert found["steps"] == [0, 0] and found["count"] == 2 and found["output"] == "pooled"
    mean = scores.raw[scores.group == "candidates"].mean()
    assert found["groups"]["candidates"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert 0 < found["groups"]["external"]["p"] < 1
    with np.load(tmp_path / "new" / "sslmem.npz") as kept:
        assert keyed(sslmem.Scores(**kept)) == pytest.approx(keyed(scores), abs=1e-6)


@pytest.mark.parametrize(
    "names, flags, words",
    [
        (("f", "f"), [], "data.ranges: found 0 candidates"),
        (("f", "g"), ["--pairs=cleen"], "--pairs: found 'cleen'; did you mean 'clean'?"),
        (("f", "g"), ["--pairs=augmentations", "--count=1"], "--count: found 1, expected at least"),
        (("f", "g"), ["--limit=1"], "--limit: found 1"),
        (("f", "g"), ["--augmentation=globl"], "did you mean 'global'?"),
        (("f", "g"), ["--config.optimizer.learning_rate=1"], "a finished run's field"),
        (("f", "none"), [], "holds no run"),
        (("f", "other"), [], "--unseen: train.global_batch: 16 -> 8; expected runs that differ"),
    ],
)
def test_errors_are_one_line(folders, capsys, names, flags, words):
    if "other" in names:
        (folders / "other").mkdir()
        (folders / "other" / "checkpoints").symlink_to(folders / "g" / "checkpoints")
        config = read_json(folders / "g" / "config.json")
        config["train"]["global_batch"] = 8
        write_json(folders / "other" / "config.json", config)
    seen, unseen = (folders / name for name in names)
    assert sslmem.main([f"--seen={seen}", f"--unseen={unseen}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error, error


def test_views_without_randomness_are_refused():
    for group in ({"count": 2, "size": 8}, {"count": 4, "size": 8, "turns": True, "flip": 0.0}):
        config = ConfigDict({"views": {"global": group}, "evals": {"size": 0}})
        with pytest.raises(ConfigError, match=r"--augmentation: found ''.*published"):
            sslmem.augment(config, "", 1, 0, (8, 8, 1))
