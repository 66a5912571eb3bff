import io
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from einops import rearrange
from jax.sharding import AxisType
from ml_collections import ConfigDict
from PIL import Image
from sklearn.metrics import jaccard_score

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.evals.probes import logistic
from jaxssl.evals.subject import Subject, encode_of
from jaxssl.evals.tasks import dense
from jaxssl.method import Field
from jaxssl.program import Program

SIZE, GRID = 16, 4
COLOURS = np.array([[250, 20, 20], [20, 20, 250], [20, 250, 20], [128, 128, 128]], np.uint8)
VOID = 3


def _mesh(devices=8):
    shape = (2, 4, 1) if devices == 8 else (1, 1, 1)
    axes = dict(axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:devices])
    return jax.make_mesh(shape, ("data", "fsdp", "model"), **axes)


def _write(folder, split, count, seed):
    """Scenes red on the left and blue on the right, with a band of no class at the top, which has
    colours of its own; the training scenes have some green, too."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    for mask in masks:
        mask[:, rng.choice([4, 8, 12]) :] = 1
        if split == "train":
            mask[12:, :4] = 2
        mask[:4] = VOID
    images = COLOURS[masks].astype(int) + rng.integers(-20, 20, (count, SIZE, SIZE, 3))
    images = np.clip(images, 0, 255).astype(np.uint8)
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    names = np.array(["red", "blue", "green", "void"])
    offsets = np.cumsum([0] + [len(file) for file in files])
    arrays = dict(jpeg=np.concatenate(files), offsets=offsets, masks=masks, label_names=names)
    np.savez(folder / f"camvid_{split}.npz", **arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    _write(folder, "train", 13, 0)
    _write(folder, "test", 11, 1)
    return folder


def _subject(folder, kind="trained", devices=8, encode=None):
    """An encoder whose tokens are the mean colours of cells."""
    fields = dict(source="camvid", path=str(folder), size=SIZE, channels=3)
    evals = dict(bank=0, test=0, batch_size=8, output="pooled")
    config = ConfigDict({"data": fields, "evals": evals})
    train, test = data.load(config.data, "train"), data.load(config.data, "test")
    info = types.SimpleNamespace(num_classes=0, fields=dict(train.fields), global_batch=8)
    program = types.SimpleNamespace(
        config=config, source=train, info=info, mesh=_mesh(devices), shapes=None
    )

    def means(state, batch, output):
        assert output == "tokens"
        cells = dict(h=GRID, w=GRID)
        image = batch["image"].astype(jnp.float32)
        blocks = rearrange(image, "b (h p) (w q) c -> b (h w) (p q) c", **cells)
        return blocks.mean(2)

    state = None if kind == "raw_input" else object()
    return Subject(kind, program, state, test, encode or means)


def test_pixels_are_told_apart_by_the_colours_of_patches_on_any_devices(folder):
    found = {}
    for devices in (1, 8):
        subject = _subject(folder, devices=devices)
        with jax.set_mesh(subject.program.mesh):
            found[devices] = dense.examine(subject)
    assert set(found[8]) == {"mean_iou", "pixel_accuracy"}
    assert found[8] == pytest.approx(found[1], abs=2e-3)
    # Green is in no held-out scene, so it counts in no mean, and the band of no class in nothing.
    assert found[8]["pixel_accuracy"] > 0.93 and found[8]["mean_iou"] > 0.87


def test_raw_input_is_cut_in_the_patches_of_the_encoder(folder):
    subject = _subject(folder, kind="raw_input")
    with jax.set_mesh(subject.program.mesh):
        found = dense.examine(subject, limit=8, patches=16)
    assert found["pixel_accuracy"] > 0.9
    image = np.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1).astype(np.uint8)
    cells = dense._cells(image, grid=2)
    np.testing.assert_allclose(255 * cells[0], [[0, 1, 4, 5], [2, 3, 6, 7], *255 * cells[0, 2:]])
    assert dense._cells(image, grid=3).shape == (2, 9, 4)  # 3 does not divide 4: 6 pixels a side


def test_features_without_a_clue_are_at_the_share_of_the_most_frequent_class(folder):
    flat = lambda state, batch, output: jnp.ones((len(batch["image"]), GRID**2, 3))
    subject = _subject(folder, encode=flat)
    with jax.set_mesh(subject.program.mesh):
        found = dense.examine(subject)
    labels = subject.test_source.rows(range(11))["labels"]
    shares = [(labels == k).sum() / (labels < VOID).sum() for k in range(2)]
    assert min(abs(found["pixel_accuracy"] - share) for share in shares) < 1e-6
    assert found["mean_iou"] == pytest.approx(found["pixel_accuracy"] / 2)


def test_the_label_of_a_patch_is_its_most_frequent_class():
    labels = np.random.default_rng(0).integers(0, 5, (3, 10, 6)).astype(np.uint8)
    labels[0, :5, :3] = 4
    found = dense.patch_labels(labels, 2, classes=3)
    for b, i, j in np.ndindex(3, 2, 2):
        cell = labels[b, 5 * i : 5 * i + 5, 3 * j : 3 * j + 3]
        counts = np.bincount(cell[cell < 3], minlength=3)
        expected = counts.argmax() if counts.any() else -1
        assert found[b, i, j] == expected
    assert found[0, 0, 0] == -1
    # A grid that does not divide the image: a pixel is in the cell of its centre.
    rows = np.array([[[0, 0, 1, 1, 1]] * 2], np.uint8)
    assert dense.patch_labels(rows, 2, classes=2)[0].tolist() == [[0, 1]] * 2


def test_patches_are_different_and_depend_on_the_index_alone():
    tokens = jnp.arange(4 * 9.0).reshape(4, 9, 1)
    labels = np.zeros((4, 9, 9), np.uint8)
    labels[1] = VOID
    labels[2, :3] = VOID
    labels[3] = labels[0]
    index = np.array([5, 6, 7, 8])
    some = lambda order: dense._patches(
        tokens[order], labels[order], index[order], classes=2, count=7, seed=0
    )
    x, y, taken = some(np.arange(4))
    assert x.shape == (4, 7, 1) and taken.sum(1).tolist() == [7, 0, 6, 7]
    assert len(np.unique(x[0])) == 7 and (np.asarray(x[2][taken[2]]) >= 21).all()
    assert (y[taken] == 0).all()
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(some(order)[0], x[order])
    assert not np.array_equal(x[0] - tokens[0, 0], x[3] - tokens[3, 0])


def test_counts_give_the_intersection_over_union_of_scikit_learn():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(8, 9, 5)).astype(np.float32)
    labels = rng.integers(0, 4, (8, 12, 7)).astype(np.uint8)  # 3 is of no class
    weight, bias = (rng.normal(size=s).astype(np.float32) for s in ((5, 3), 3))
    valid = np.arange(8) < 6
    model = logistic.Linear(weight, bias)
    right, predicted, actual = np.asarray(dense._counts(model, tokens, labels, valid))
    logits = (tokens @ weight + bias).reshape(8, 3, 3, 3)
    said = np.argmax(jax.image.resize(logits, (8, 12, 7, 3), "linear"), axis=-1)
    mine = (labels < 3) & valid[:, None, None]
    expected = jaccard_score(labels[mine], said[mine], average=None)
    np.testing.assert_allclose(right / (predicted + actual - right), expected, atol=0.01)
    assert actual.tolist() == np.bincount(labels[mine], minlength=3).tolist()
    assert predicted.sum() == mine.sum()


def test_an_encoder_is_judged_on_another_set_in_its_size(folder, tmp_path):
    """The run's own data have classes of images, and none of pixels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (20, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(20) % 2
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    subject = _subject(folder)
    config = ConfigDict(dict(source="npz", path=str(tmp_path), train_split="train"))
    subject.program.source = data.load(config, "train")
    subject.test_source = data.load(config, "test")
    subject.program.config.data = config
    with jax.set_mesh(subject.program.mesh):
        with pytest.raises(ConfigError, match=r"evals\.dense\.source: .*no labels of pixels"):
            dense.examine(subject)
        found = dense.examine(subject, source="camvid", path=str(folder), size=SIZE)
        assert found["pixel_accuracy"] > 0.93
        with pytest.raises(ConfigError, match=r"evals\.dense: data\.path"):
            dense.examine(subject, source="camvid", path=str(tmp_path), size=SIZE)


def test_what_is_no_grid_or_no_square_is_one_line(folder):
    with pytest.raises(ConfigError, match=r"found tokens of shape \(8, 17, 2\)"):
        dense.examine(_subject(folder, encode=lambda *_: jnp.ones((8, GRID**2 + 1, 2))))
    wide = _subject(folder)
    fields = wide.program.source.fields
    wide.program.source.fields = {**fields, "image": Field("image", (16, 20, 3), "uint8")}
    with pytest.raises(ConfigError, match="expected squares"):
        dense.examine(wide)
    assert protocol.resolve("dense", {"source": "camvid"})["patches"] == 32


def test_the_encoder_of_a_run_on_scenes_without_classes_of_their_own(folder, tmp_path):
    fields = dict(source="camvid", path=str(folder), size=SIZE, channels=3)
    fields |= dict(mean=(0.4,) * 3, std=(0.3,) * 3)
    changes = {f"data.{name}": value for name, value in fields.items()}
    config = tiny.load(tmp_path, **changes, **{"train.global_batch": 8, "evals.batch_size": 8})
    program = Program(config)
    encode = jax.jit(encode_of(program, "student"), static_argnames="output")
    test = data.load(config.data, "test")
    with jax.set_mesh(program.mesh):
        found = dense.examine(Subject("random_init", program, program.init(), test, encode))
    assert found["pixel_accuracy"] > 0.6
    # The labels of pixels travel with the batch of a step, which does without them.
    _, metrics = program.step(program.init(), next(program.batches(0)))
    assert np.isfinite(float(metrics["loss"]))
