import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from ml_collections import ConfigDict

from jaxssl import data, evals
from jaxssl.config.errors import ConfigError
from jaxssl.evals.diagnostics import geometry
from jaxssl.evals.diagnostics import rank as diagnostics
from jaxssl.evals.subject import Subject
from jaxssl.modalities.image import raw

LABEL_FREE = {
    "rankme",
    "effective_rank",
    "effective_dimension",
    "nesum",
    "alpha_req",
    "std",
    "uniformity",
    "sigreg",
    "alignment",
    "lidar",
}
CLASSES = {"intra_variance", "inter_variance", "nc1"}
FEW = dict(samples=20, views=3, slices=32, last=8)


def encode(state, batch, output):
    """A fixed random encoder of pixels."""
    x = raw(batch["image"])
    return jnp.tanh(x @ jax.random.normal(jax.random.key(0), (x.shape[1], 6)))


def subject_of(folder, views, *, kind="raw_input", shape=(2, 4, 1), encoder=encode, y=None):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 3 if y is None else y
    x = rng.integers(0, 256, (30, 6, 6, 1)).astype(np.uint8)
    np.savez(folder / "set.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    config = ConfigDict(
        {
            "data": {
                "source": "npz",
                "path": str(folder / "set.npz"),
                "size": 0,
                "channels": 0,
                "mean": 0.3,
                "std": 0.2,
            },
            "views": views,
            "evals": {"bank": 0, "test": 0, "batch_size": 16, "output": "pooled"},
        }
    )
    train, test = data.load(config.data, "train"), data.load(config.data, "test")
    mesh = jax.make_mesh(
        shape,
        ("data", "fsdp", "model"),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[: int(np.prod(shape))],
    )
    info = types.SimpleNamespace(num_classes=3, fields=dict(train.fields))
    program = types.SimpleNamespace(config=config, source=train, info=info, mesh=mesh)
    state = None if kind == "raw_input" else {}
    return Subject(kind, program, state, test, jax.jit(encoder, static_argnames="output"))


def run(subject, **fields):
    with jax.set_mesh(subject.program.mesh):
        return evals.run({"geometry": {**FEW, **fields}}, {subject.kind: subject})


def values(results, kind):
    return {name.removeprefix("geometry/"): row[kind] for name, row in results.items()}


NOISY = {"global": {"count": 2, "size": 6, "noise": {"sigma": 0.1}}}


def test_the_numbers_are_those_of_the_functions_and_none_is_better_than_another(tmp_path):
    subject = subject_of(tmp_path, NOISY, kind="trained")
    results = run(subject)
    found = values(results, "trained")
    assert set(found) == LABEL_FREE | CLASSES
    assert all(row["better"] is None for row in results.values())
    x = subject.test.x
    assert found["rankme"] == diagnostics.rankme(x)
    assert found["alpha_req"] == diagnostics.alpha_req(x, last=8)
    assert found["nc1"] == diagnostics.class_variances(x, subject.test.y)["nc1"]
    fewer = values(run(subject, rows=10), "trained")
    assert fewer["uniformity"] == diagnostics.uniformity(x[::3])
    assert fewer["lidar"] == found["lidar"]  # of views, not of rows


def test_one_device_gives_the_numbers_of_eight(tmp_path):
    many = values(run(subject_of(tmp_path, NOISY, kind="trained")), "trained")
    one = values(run(subject_of(tmp_path, NOISY, kind="trained", shape=(1, 1, 1))), "trained")
    assert one == pytest.approx(many, rel=1e-4)


def test_views_are_those_of_the_runs_augmentations(tmp_path):
    still = subject_of(tmp_path, {"global": {"count": 2, "size": 6}})
    found = values(run(still), "raw_input")
    assert found["alignment"] == pytest.approx(0, abs=1e-9)  # nothing is augmented
    moved = values(run(subject_of(tmp_path, NOISY)), "raw_input")
    assert 0.001 < moved["alignment"] < 0.2
    assert moved["rankme"] == found["rankme"]  # of the plain samples
    two = {"local": {"count": 1, "size": 4, "noise": {"sigma": 0.1}}, **still.program.config.views}
    assert values(run(subject_of(tmp_path, two)), "raw_input")["alignment"] < 1e-9
    chosen = values(run(subject_of(tmp_path, two), group="local"), "raw_input")
    assert chosen["alignment"] > 0.001


def test_a_view_is_an_image_again_each_number_another_and_no_batch_in_it(tmp_path):
    subject = subject_of(tmp_path, {"only": {"count": 4, "size": 6, "turns": True, "flip": 0.5}})
    draw = geometry.random_view(subject.program.config, subject.program.info.fields)
    batch = {name: jnp.asarray(x) for name, x in subject.test_source.rows(np.arange(30)).items()}
    drawn = [np.asarray(draw(np.uint32(i), batch)["image"]) for i in range(2)]
    assert drawn[0].dtype == np.uint8 and drawn[0].shape == (30, 6, 6, 1)
    image = np.asarray(batch["image"])
    same = (drawn[0] == image).all((1, 2, 3))
    mirrored = (drawn[0] == image[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all() and same.any() and mirrored.any()
    assert (drawn[0] != drawn[1]).any()
    part = {name: x[7:9] for name, x in batch.items()}
    np.testing.assert_array_equal(draw(np.uint32(0), part)["image"], drawn[0][7:9])


def test_samples_without_two_classes_or_two_directions_leave_numbers_out(tmp_path):
    flat = lambda state, batch, output: jnp.ones((len(batch["image"]), 4))
    subject = subject_of(tmp_path, NOISY, kind="trained", encoder=flat, y=np.zeros(30, int))
    found = geometry.examine(subject, **FEW)
    assert set(found) == LABEL_FREE - {"alpha_req"}
    assert found["lidar"] == found["effective_rank"] == found["alignment"] == 0


def test_what_does_not_fit_is_one_line(tmp_path):
    subject = subject_of(tmp_path, NOISY)
    for fields, message in (
        (dict(group="globl"), r"group: no group 'globl'; did you mean 'global'"),
        (dict(views=1), r"views: found 1, expected at least 2"),
        (dict(samples=1), r"samples: found 1, expected at least 2"),
        (dict(first=8), r"last: found 8, expected at least 9"),
    ):
        with pytest.raises(ConfigError, match=rf"evals\.geometry\.{message}"):
            run(subject, **fields)
    with pytest.raises(ConfigError, match=r"evals\.geometry: found a run without views"):
        run(subject_of(tmp_path, {}))
    broken = lambda state, batch, output: jnp.full((len(batch["image"]), 4), jnp.nan)
    with pytest.raises(FloatingPointError, match="the trained features"):
        run(subject_of(tmp_path, NOISY, kind="trained", encoder=broken))
