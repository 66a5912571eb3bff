"""Clips and volumes made from digits, and cubes of a stack of slices."""

import pickle

import ml_collections
import numpy as np
import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.data import load
from jaxssl.data.images import ArraySource, Options
from jaxssl.data.sets import digits
from jaxssl.data.sets.moving_digits import DIRECTIONS

MADE = [("moving_digits", (8, 32, 32, 1)), ("stacked_digits", (16, 32, 32, 1))]


def opened(source, split="train", **fields):
    return load(ml_collections.ConfigDict({"source": source, **fields}), split)


def centre_of_mass(clip):
    """(y, x) of every frame of a clip [T, S, S, 1], as [T, 2]."""
    mass = clip[..., 0].astype(np.float64)
    axis = np.arange(mass.shape[1])
    moments = np.stack([mass.sum(2) @ axis, mass.sum(1) @ axis], axis=-1)
    return moments / mass.sum((1, 2))[:, None]


@pytest.mark.parametrize(("name", "shape"), MADE)
def test_made_sets_are_functions_of_split_and_index(name, shape):
    train, test = opened(name), opened(name, "test", cache="none")
    assert train.fields["image"].shape == test.fields["image"].shape == shape
    assert (len(train), len(test), train.num_classes) == (4096, 1024, 10)
    ids = np.array([5, 4000, 5])
    rows = train.rows(ids)
    again = opened(name, cache="none").rows(ids[::-1])
    np.testing.assert_array_equal(again["image"][::-1], rows["image"])
    np.testing.assert_array_equal(again["label"][::-1], rows["label"])
    np.testing.assert_array_equal(rows["image"][0], rows["image"][2])
    assert rows["image"].dtype == np.uint8 and rows["label"].dtype == np.int32
    assert pickle.loads(pickle.dumps(train)).fingerprint == opened(name).fingerprint
    assert train.fingerprint != test.fingerprint
    # The same digit in another sample moves otherwise.
    same = train.rows([5, 5 + len(train.glyphs)])
    assert same["label"][0] == same["label"][1]
    assert not np.array_equal(same["image"][0], same["image"][1])


@pytest.mark.parametrize(("name", "shape"), MADE)
def test_no_digit_is_in_both_splits(name, shape):
    for split in ("train", "test"):
        stored = digits.open({"size": 16}, split)
        source = opened(name, split)
        np.testing.assert_array_equal(source.glyphs, stored.images[..., 0])
        ids = np.arange(0, len(source), 97)
        np.testing.assert_array_equal(
            source.rows(ids)["label"], stored.labels[ids % len(stored.images)]
        )


@pytest.mark.parametrize("name", ["moving_digits", "stacked_digits"])
def test_sizes_frames_and_channels(name):
    source = opened(name, size=12, frames=3, channels=3)
    assert source.fields["image"].shape == (3, 12, 12, 3)
    image = source[2]["image"]
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    np.testing.assert_array_equal(image[..., :1], opened(name, size=12, frames=3)[2]["image"])


def test_digits_move_at_constant_velocity_between_bounces_and_never_leave():
    source = opened("moving_digits", frames=24, size=64)
    bounced = 0
    for i in range(20):
        clip, (places, direction) = source[i]["image"], source.motion(i)
        glyph = source.glyphs[i].astype(np.float64)
        centre = centre_of_mass(clip)
        np.testing.assert_allclose(centre - centre[0], places - places[0], atol=0.02)
        assert places.min() >= 0 and places.max() <= 32
        np.testing.assert_allclose(clip.sum((1, 2, 3)), glyph.sum(), rtol=0.01)
        steps = np.diff(places, axis=0)
        bends = np.abs(np.diff(steps, axis=0)).max(1) > 1e-9
        bounced += bends.any()
        # On an axis the pace changes only around a bounce: elsewhere every |step| is the first.
        for axis in (0, 1):
            pace = np.abs(steps[:, axis])
            turned = pace < np.abs(steps[0, axis]) - 1e-9
            np.testing.assert_allclose(pace[~turned], np.abs(steps[0, axis]), atol=1e-9)
            free = places[1:, axis][turned], places[:-1, axis][turned]
            assert all(min(a, b, 32 - a, 32 - b) <= 64 / 16 for a, b in zip(*free, strict=True))
        assert 64 / 32 <= np.linalg.norm(steps[0]) <= 64 / 16
        angle = np.rad2deg(np.arctan2(steps[0, 0], steps[0, 1])) % 360
        assert round(angle / 45) % 8 == direction
    assert bounced > 5


def test_the_label_may_be_the_direction():
    source = opened("moving_digits:direction", "test")
    assert source.label_names == DIRECTIONS
    rows = source.rows(np.arange(32))
    for clip, label in zip(rows["image"], rows["label"], strict=True):
        first = np.diff(centre_of_mass(clip)[:2], axis=0)[0]
        angle = np.rad2deg(np.arctan2(first[0], first[1])) % 360
        assert round(angle / 45) % 8 == label
    assert set(rows["label"]) == set(range(8))
    np.testing.assert_array_equal(
        rows["image"], opened("moving_digits", "test").rows(np.arange(32))["image"]
    )


def test_a_stack_turns_slowly_before_its_texture():
    source = opened("stacked_digits")
    volumes = source.rows(np.arange(12))["image"][..., 0].astype(np.float64)
    flat = volumes.reshape(12, 16, -1)
    flat = flat - flat.mean(2, keepdims=True)
    flat /= np.linalg.norm(flat, axis=2, keepdims=True)
    near = (flat[:, :-1] * flat[:, 1:]).sum(2).mean()
    far = (flat[:, :1] * flat[:, -1:]).sum(2).mean()
    assert near > 0.9 > far + 0.05
    assert volumes[:, :, 0].std() > 5  # texture up to the border, where no digit reaches
    assert volumes.max() > 230


@pytest.fixture
def stack(tmp_path):
    """A small file of slices whose voxels name their slice; membranes in the left third."""
    images = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 12, 12))
    masks = np.ones((10, 12, 12), np.uint8)
    masks[:, :, :4] = 0
    split = np.array(["train"] * 6 + ["test"] * 4)
    np.savez(tmp_path / "em_membrane.npz", images=images, masks=masks, split=split)
    return tmp_path


def test_cubes_come_from_disjoint_slices(stack):
    fields = dict(path=str(stack), frames=4, size=4)
    train, test = (opened("em_volume", split, **fields) for split in ("train", "test"))
    assert train.fields["image"].shape == (4, 4, 4, 1)
    assert (len(train), len(test)) == (2 * 5 * 5, 5 * 5)
    seen = [set(s.rows(np.arange(len(s)))["image"].ravel().tolist()) for s in (train, test)]
    assert seen == [set(range(6)), set(range(6, 10))]
    np.testing.assert_array_equal(train[0]["image"][:, 0, 0, 0], np.arange(4))
    labels = test.rows(np.arange(25))["label"].reshape(5, 5)
    assert (np.diff(labels, axis=1) <= 0).all()  # fewer membranes to the right
    assert labels[0, 0] > labels[0, -1] and train.num_classes == 3


def test_the_real_volume(shared):
    folder = shared / "data" / "em_membrane"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    train, test = (opened("em_volume", split, path=str(folder)) for split in ("train", "test"))
    assert (len(train), len(test), train.fields["image"].shape) == (900, 225, (8, 32, 32, 1))
    rows = train.rows(np.arange(900))
    np.testing.assert_array_equal(np.bincount(rows["label"]), [300, 300, 300])
    brightness = rows["image"].mean((1, 2, 3, 4))
    assert brightness[rows["label"] == 0].mean() > brightness[rows["label"] == 2].mean() + 10


def test_arrays_of_clips():
    clips = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8, 1)).astype(np.uint8)
    source = ArraySource("clips", clips, np.arange(6))
    np.testing.assert_array_equal(source.rows([4, 1])["image"], clips[[4, 1]])
    small = ArraySource("clips", clips, None, opts=Options(size=4, frames=3))
    assert small.rows([0, 5])["image"].shape == (2, 3, 4, 4, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (dict(source="digits", frames=4), "data.frames: found 4, but digits test holds images"),
        (dict(source="digits", frames=-1), "data.frames: -1"),
        (dict(source="moving_digits:dirction"), "no label 'dirction'|did you mean 'direction'"),
        (dict(source="stacked_digits", size=4), "data.size: found 4, expected at least 8"),
        (dict(source="em_volume", path="/none/x"), "data.path: /none/x|em_membrane.npz"),
    ],
)
def test_errors_are_one_line_and_name_the_field(fields, words):
    with pytest.raises(ConfigError) as error:
        opened(split="test", **fields)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words.split("|")), str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(frames=5), "data.frames: found 5, expected at most 4, the slices"),
        (dict(size=16, frames=2), "data.size: found 16, expected at most 12 pixels"),
    ],
)
def test_cubes_larger_than_the_volume_are_refused(stack, fields, message):
    with pytest.raises(ConfigError, match=message):
        opened("em_volume", path=str(stack), **fields)
