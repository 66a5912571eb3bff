import types

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from ml_collections import ConfigDict
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.evals.features import Features
from jaxssl.evals.robustness import out_of_distribution as ood
from jaxssl.evals.subject import Subject

K = 3


def _bank(seed, count, width=5, shift=0.0):
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % K).astype(np.int32)
    scales = np.asarray([3.0, 1.0, 1.0, 0.3, 0.1])[:width]
    x = 3 * np.eye(K, width)[y] + scales * rng.normal(size=(count, width)) + shift
    return Features(x.astype(np.float32), y, np.arange(count))


def _mesh():
    return jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)


def test_mahalanobis_is_the_distance_to_the_nearest_class_in_the_shared_covariance():
    train, x = _bank(0, 90), _bank(1, 20).x
    means = np.stack([train.x[train.y == c].mean(axis=0) for c in range(K)]).astype(np.float64)
    residual = train.x - means[train.y]
    covariance, shrinkage = ledoit_wolf(residual, assume_centered=True)
    assert 0 < shrinkage < 1
    inverse = np.linalg.inv(covariance)
    expected = [-min((row - m) @ inverse @ (row - m) for m in means) for row in x]
    np.testing.assert_allclose(ood.mahalanobis(train, x), expected, rtol=1e-5)


def test_mahalanobis_does_not_see_the_names_of_classes_and_survives_flat_features():
    train, x = _bank(0, 90), _bank(1, 20).x
    renamed = Features(train.x, 7 - 2 * train.y, train.index)
    np.testing.assert_allclose(ood.mahalanobis(renamed, x), ood.mahalanobis(train, x))
    flat = Features(np.ones_like(train.x), train.y, train.index)
    np.testing.assert_array_equal(ood.mahalanobis(flat, flat.x[:4]), np.zeros(4))
    dead = Features(np.pad(train.x, [(0, 0), (0, 2)]), train.y, train.index)  # singular by itself
    assert np.isfinite(ood.mahalanobis(dead, np.pad(x, [(0, 0), (0, 2)]))).all()


def test_the_neighbour_is_the_kth_of_unit_vectors_on_one_and_eight_devices():
    train, x = _bank(0, 45), _bank(1, 21).x
    long = lambda x: x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    distances = np.linalg.norm(long(x)[:, None] - long(train.x), axis=-1)
    expected = -np.sort(distances, axis=1)[:, 3]
    for chunk in (8, 256):
        found = ood.neighbours(train, x, k=4, chunk=chunk)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(ood.neighbours(train, 9 * x, k=4, chunk=8), expected, atol=2e-5)
    with jax.set_mesh(_mesh()):
        found = ood.neighbours(train, x, k=4, chunk=8)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Raw pixels of reddish noise, with splits of unusual names."""
    folder = tmp_path_factory.mktemp("ood")
    rng = np.random.default_rng(0)

    def write(name, colour):
        noise = lambda n: rng.integers(0, 120, (n, 8, 8, 3)).astype(np.uint8) + colour
        labels = lambda count: np.arange(count) % K
        parts = {"x_fit": noise(60), "y_fit": labels(60), "x_held": noise(40), "y_held": labels(40)}
        parts |= {"x_test": noise(30), "y_test": labels(30)}
        np.savez(folder / f"{name}.npz", **parts)

    write("own", np.uint8([100, 0, 0]))
    write("blue", np.uint8([0, 0, 100]))
    config = ConfigDict(
        {
            "data": {
                "source": "npz",
                "path": str(folder / "own.npz"),
                "size": 0,
                "channels": 0,
                "train_split": "fit",
                "test_split": "held",
            },
            "evals": {"bank": 0, "test": 0, "batch_size": 16, "output": "pooled"},
        }
    )
    train, test = data.load(config.data, "train"), data.load(config.data, "test")
    info = types.SimpleNamespace(num_classes=K, fields=dict(train.fields))
    program = types.SimpleNamespace(config=config, source=train, info=info, mesh=_mesh())
    return folder, Subject("raw_input", program, None, test, lambda *_: None)


def test_another_data_set_is_told_apart_and_the_same_distribution_is_not(subject):
    folder, subject = subject
    find = lambda name, **fields: ood.examine(
        subject, source="npz", path=str(folder / f"{name}.npz"), **fields
    )
    assert find("blue") == pytest.approx({"mahalanobis": 1.0, "knn": 1.0}, abs=0.02)
    same = find("own", k=5)  # other samples: this split is not the one that the run holds out
    assert same == pytest.approx({"mahalanobis": 0.5, "knn": 0.5}, abs=0.2)

    other = ood.open_other(subject, "npz", str(folder / "own.npz"))
    outside = subject.features(other).x
    inside = np.repeat([1, 0], [40, 30])
    scores = ood.mahalanobis(subject.train, np.concatenate([subject.test.x, outside]))
    assert same["mahalanobis"] == pytest.approx(roc_auc_score(inside, scores))


def test_the_other_set_is_read_in_the_shape_of_the_run(subject):
    other = ood.open_other(subject[1], "digits", "")
    assert other.fields["image"].shape == (8, 8, 3)
    found = ood.examine(subject[1], limit=25)
    assert set(found) == {"mahalanobis", "knn"} and found["mahalanobis"] > 0.9


def test_a_set_that_is_not_there_or_is_the_runs_own_is_one_line(subject):
    folder, subject = subject
    with pytest.raises(ConfigError, match=r"evals\.out_of_distribution: .*did you mean 'digits'"):
        ood.examine(subject, source="digit")
    with pytest.raises(ConfigError, match=r"evals\.out_of_distribution: data\.path: .*none\.npz"):
        ood.examine(subject, source="npz", path=str(folder / "none.npz"))
    with pytest.raises(ConfigError, match="k: found 99, expected at most the bank's 60"):
        ood.examine(subject, k=99)
    own = types.SimpleNamespace(
        program=subject.program,
        field=subject.field,
        test_source=ood.open_other(subject, "digits", ""),
    )
    with pytest.raises(ConfigError, match="source: found 'digits', the run's own data"):
        ood.open_other(own, "digits", "")
