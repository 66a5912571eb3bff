import io
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from PIL import Image

from jaxssl import data
from jaxssl.config.errors import ConfigError
from jaxssl.data.images import image_fields
from jaxssl.data.part import Wrapper
from jaxssl.evals import protocol
from jaxssl.evals.features import Features
from jaxssl.evals.probes import linear
from jaxssl.evals.robustness import corruptions
from jaxssl.evals.robustness.corruptions import CORRUPTIONS, corrupted
from jaxssl.evals.subject import Subject

B, SIDE = 8, 32


def _mesh():
    return jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)


@pytest.fixture(scope="module")
def batch():
    """Smooth colour images with an edge, far from black and white."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(50, 200, (B, 6, 6, 3))
    images = np.array(jax.image.resize(coarse, (B, SIDE, SIDE, 3), "cubic"))
    images[:, :, 20:] *= 0.6
    index = np.arange(B, dtype=np.int32) + 3
    return {"image": np.clip(images, 20, 220).astype(np.uint8), "index": index}


def _change(name, severity, image, seed=0):
    index = np.arange(len(image), dtype=np.int32)
    found = corrupted(name, severity, seed)({"image": jnp.asarray(image), "index": index})
    return np.asarray(found["image"])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_sample_is_corrupted_alike_in_any_batch_on_any_devices_and_more_when_severer(name, batch):
    weak, strong = (np.asarray(corrupted(name, s)(batch)["image"]) for s in (1, 5))
    assert strong.shape == batch["image"].shape and strong.dtype == np.uint8
    moved = lambda x: np.abs(x.astype(float) - batch["image"]).mean()
    assert moved(strong) > max(1.0, 1.2 * moved(weak))
    order = np.array([5, 2, 7, 0, 1, 6, 4, 3])
    sharding = NamedSharding(_mesh(), PartitionSpec(("data", "fsdp")))
    placed = {key: jax.device_put(x[order], sharding) for key, x in batch.items()}
    again = np.asarray(corrupted(name, 5)(placed)["image"]).astype(int)
    # Rounding to whole levels may fall on either side.
    assert np.abs(again - strong[order]).max() <= 1
    assert (again != strong[order]).mean() < 1e-3


def test_noise_has_the_published_spread():
    image = np.full((B, SIDE, SIDE, 3), 128, np.uint8)
    gaussian = _change("gaussian_noise", 3, image) / 255
    assert gaussian.std() == pytest.approx(0.08, rel=0.05)
    shot = _change("shot_noise", 5, image) / 255
    mean = 128 / 255
    assert shot.mean() == pytest.approx(mean, abs=0.005)
    assert shot.std() == pytest.approx(np.sqrt(mean / 50), rel=0.05)
    impulse = _change("impulse_noise", 5, image)
    assert (impulse == 0).mean() == pytest.approx(0.035, abs=0.007)
    assert (impulse == 255).mean() == pytest.approx(0.035, abs=0.007)
    assert (impulse == 128).mean() > 0.9
    # Each sample has noise of its own, and another seed another.
    assert not np.array_equal(gaussian[0], gaussian[1])
    assert not np.array_equal(gaussian, _change("gaussian_noise", 3, image, seed=1) / 255)


def test_contrast_and_brightness_are_their_equations(batch):
    x = batch["image"] / 255
    mean = x.mean((1, 2), keepdims=True)
    expected = 0.4 * (x - mean) + mean
    found = np.asarray(corrupted("contrast", 3)(batch)["image"]) / 255
    np.testing.assert_allclose(found, expected, atol=1 / 255)
    found = np.asarray(corrupted("brightness", 5)(batch)["image"]) / 255
    np.testing.assert_allclose(found.max(-1), np.minimum(x.max(-1) + 0.3, 1), atol=1 / 255)
    unsaturated = lambda x: x.min(-1) / x.max(-1)
    np.testing.assert_allclose(unsaturated(found), unsaturated(x), atol=0.02)
    black = _change("brightness", 5, np.zeros((B, SIDE, SIDE, 3), np.uint8))
    assert np.unique(black).tolist() == [round(0.3 * 255)]


def test_pixelate_gives_every_cell_the_mean_of_its_area(batch):
    found = np.asarray(corrupted("pixelate", 4)(batch)["image"])
    cells = int(0.75 * SIDE)
    fine = batch["image"].repeat(cells, axis=1).repeat(cells, axis=2)  # cells and pixels divide it
    means = fine.reshape(B, cells, SIDE, cells, SIDE, 3).mean((2, 4))
    # A pixel is of the cell that its centre is in.
    nearest = np.floor((np.arange(SIDE) + 0.5) * cells / SIDE).astype(int)
    np.testing.assert_allclose(found, means[:, nearest][:, :, nearest], atol=0.51)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_an_encoder_leaves(batch, channels):
    image = batch["image"][:2, :30, :, :channels]  # 30 is no multiple of 8
    found = _change("jpeg", 5, image).astype(int)
    for before, mine in zip(image, found):
        file = io.BytesIO()
        Image.fromarray(before.squeeze()).save(file, "JPEG", quality=40, subsampling=0)
        expected = np.asarray(Image.open(file)).reshape(mine.shape).astype(int)
        error = np.abs(mine - expected).mean()
        assert error < min(1.5, np.abs(before.astype(int) - expected).mean() / 3)


def test_what_is_flat_stays_and_fog_lies_between_none_and_all_of_it():
    flat = np.full((B, SIDE, SIDE, 3), 90, np.uint8)
    for name in ("gaussian_blur", "motion_blur", "elastic", "pixelate", "jpeg", "contrast"):
        assert np.abs(_change(name, 5, flat).astype(int) - 90).max() <= 1, name
    hazy = _change("fog", 5, flat) / 255
    level = 90 / 255
    assert hazy.min() == pytest.approx(level**2 / (level + 1.5), abs=0.01)
    assert hazy.max() == pytest.approx(level, abs=0.01)


def test_lengths_grow_with_the_image():
    """A blur of twice the image is twice as wide."""
    point = np.zeros((1, 65, 65, 1), np.uint8)
    point[0, 32, 32] = 255
    small = _change("gaussian_blur", 5, point[:, 16:49, 16:49])[0, ..., 0].astype(float)
    large = _change("gaussian_blur", 5, point)[0, ..., 0].astype(float)
    width = lambda x: np.sqrt((x.sum(0) * (np.arange(len(x)) - len(x) // 2) ** 2).sum() / x.sum())
    assert width(large) == pytest.approx(2 * width(small), rel=0.15)
    # From LARGE pixels on, the strengths are those for photographs.
    photo = np.full((1, corruptions.LARGE, corruptions.LARGE, 1), 128, np.uint8)
    assert (_change("gaussian_noise", 1, photo) / 255).std() == pytest.approx(0.08, rel=0.05)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """Raw pixels of three overlapping classes."""
    rng = np.random.default_rng(0)
    means = rng.uniform(110, 140, (3, 8, 8, 3))

    def split(count):
        y = np.arange(count) % 3
        return np.clip(means[y] + rng.normal(0, 90, (count, 8, 8, 3)), 0, 255).astype(np.uint8), y

    parts = dict(zip(("x_train", "y_train", "x_test", "y_test"), (*split(90), *split(60))))
    path = tmp_path_factory.mktemp("corruptions") / "own.npz"
    np.savez(path, **parts)
    evals = dict(bank=0, test=0, batch_size=16, output="pooled")
    config = ConfigDict({"data": {"source": "npz", "path": str(path)}, "evals": evals})
    train, test = data.load(config.data, "train"), data.load(config.data, "test")
    info = types.SimpleNamespace(num_classes=3, fields=dict(train.fields))
    program = types.SimpleNamespace(config=config, source=train, info=info, mesh=_mesh())
    return Subject("raw_input", program, None, test, lambda *_: None)


class Photos(Wrapper):
    """The images under a name of the source's own."""

    def __init__(self, whole):
        super().__init__(whole, whole.name, b"photo")
        self.fields = {{"image": "photo"}.get(n, n): field for n, field in whole.fields.items()}

    def rows(self, indices):
        return {{"image": "photo"}.get(n, n): x for n, x in self.whole.rows(indices).items()}


def test_the_name_of_the_field_makes_no_difference(subject):
    program = types.SimpleNamespace(**vars(subject.program))
    program.source = Photos(program.source)
    program.info = types.SimpleNamespace(num_classes=3, fields=dict(program.source.fields))
    named = Subject("raw_input", program, None, Photos(subject.test_source), lambda *_: None)
    judge = lambda subject: corruptions.examine(subject, corruptions=("contrast",), limit=20)
    with jax.set_mesh(program.mesh):
        assert judge(named) == judge(subject)


def test_a_probe_of_clean_images_is_judged_on_corrupted_ones(subject):
    names = ("contrast", "gaussian_noise")
    with jax.set_mesh(subject.program.mesh):
        found = corruptions.examine(subject, corruptions=names, severities=(2, 5), limit=40)
        clean = subject.features(subject.test_source, limit=40)
        of_clean = linear.evaluate(subject.train, clean, num_classes=3)
    assert set(found) == {"clean", "accuracy", "relative", *names}
    assert found["clean"] == pytest.approx(of_clean["accuracy"])
    assert found["accuracy"] == pytest.approx(np.mean([found[name] for name in names]))
    assert found["relative"] == pytest.approx(found["accuracy"] / found["clean"])

    # The same corruption on the host's side of the encoder: train statistics, no fit to the test.
    rows = subject.test_source.rows(clean.index)
    expected = []
    for severity in (2, 5):
        x = np.asarray(corrupted("contrast", severity)(rows)["image"]) / np.float32(255)
        bank = Features(x.reshape(40, -1), rows["label"], clean.index)
        with jax.set_mesh(subject.program.mesh):
            expected.append(linear.evaluate(subject.train, bank, num_classes=3)["accuracy"])
    assert found["contrast"] == pytest.approx(np.mean(expected))
    assert found["clean"] < 1


def test_what_is_no_corruption_is_one_line(subject):
    with pytest.raises(ConfigError, match="no corruption 'jpg'; did you mean 'jpeg'"):
        corruptions.examine(subject, corruptions=("jpg",))
    with pytest.raises(ConfigError, match=r"severities: found 6, expected 1 \.\.\. 5"):
        corruptions.examine(subject, severities=(1, 6))
    clip = "image", image_fields((4, 8, 8, 1))["image"]
    with pytest.raises(ConfigError, match=r"expected images \[H, W, C\]"):
        corruptions.examine(types.SimpleNamespace(field=clip))
    assert protocol.resolve("corruptions", {"severities": [5]})["severities"] == (5,)
