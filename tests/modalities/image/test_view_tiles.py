"""Groups of views made of one random view: its four turns, and its tiles."""

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from keyed_views import check_eight_devices
from ml_collections import ConfigDict

from jaxssl.config.errors import ConfigError

KEY = jax.random.key(5)
RANDOM = dict(pad_crop=dict(padding=2), flip=0.5)


def batch_of(n=6, side=12, channels=3, frames=()):
    pixels = np.random.default_rng(0).integers(0, 256, (n, *frames, side, side, channels))
    return {"image": jnp.asarray(pixels, jnp.uint8), "index": jnp.arange(n, dtype=jnp.int32) + 40}


def make(batch, groups, mean=0.0, std=1.0):
    found = jax.jit(image_views.build(ConfigDict(groups), mean=mean, std=std))(KEY, batch)
    return {name: np.asarray(x) for name, x in found.items()}


def tiles_of(batch, mean=0.0, std=1.0, **group):
    """The tiles [B, V, ...] of a group of its own."""
    return make(batch, {"all": group}, mean, std)["all"]


def test_turns_are_exact_and_share_every_draw():
    groups = {
        "all": dict(count=4, size=8, turns=True, **RANDOM),
        "more": dict(count=4, size=8, turns=True, noise=dict(sigma=0.3)),
    }
    batch = batch_of()
    found = make(batch, groups)
    plain = make(batch, {n: {**g, "turns": False} for n, g in groups.items()})
    for name, turned in found.items():
        np.testing.assert_array_equal(turned[:, 0], plain[name][:, 0])  # drawn as the first view
        for view in range(4):
            # Four turns by 90 degrees are none; one of them is a turn of the last one.
            np.testing.assert_array_equal(
                np.rot90(turned[:, view], 1, (1, 2)), turned[:, (view + 1) % 4]
            )
    assert not np.array_equal(plain["all"][:, 0], plain["all"][:, 1])


def test_turns_of_a_clip_turn_its_frames():
    clip = make(batch_of(n=2, frames=(3,)), {"all": dict(count=4, size=12, turns=True)})["all"]
    assert clip.shape == (2, 4, 3, 12, 12, 3)
    np.testing.assert_array_equal(np.rot90(clip[:, 0], 1, (2, 3)), clip[:, 1])


def test_tiles_without_room_are_the_image_row_by_row():
    batch = batch_of(side=12)
    found = tiles_of(batch, count=9, size=4, tiles=dict(side=3))
    image = np.asarray(batch["image"], np.float32) / 255
    for view in range(9):
        top, left = 4 * (view // 3), 4 * (view % 3)
        np.testing.assert_allclose(
            found[:, view], image[:, top : top + 4, left : left + 4], atol=1e-6
        )


def test_tiles_of_the_transposed_image_lie_at_transposed_places():
    batch = batch_of(side=14)
    flipped = {**batch, "image": batch["image"].swapaxes(1, 2)}
    group = dict(count=9, size=4, tiles=dict(side=3, gap=1))
    there = np.arange(9).reshape(3, 3).T.ravel()
    transposed = tiles_of(flipped, **group)[:, there].swapaxes(2, 3)
    np.testing.assert_allclose(transposed, tiles_of(batch, **group), atol=1e-6)


def places(found, image):
    """Where each tile [B, V, s, s, 1] of distinct pixels was in its image: corners [B, V, 2]."""
    corners = np.rint(found[:, :, 0, 0, 0] * 255).astype(int)
    at = np.array(
        [[np.argwhere(im[..., 0] == c)[0] for c in row] for im, row in zip(image, corners)]
    )
    for picture, tiles, own in zip(image, found, at):
        for tile, (y, x) in zip(tiles, own):
            window = picture[y : y + tile.shape[0], x : x + tile.shape[1]] / 255
            np.testing.assert_allclose(tile, window, atol=1e-6)
    return at


def test_tiles_keep_their_gap_and_lie_anywhere_in_their_cells():
    side, size, gap, jitter = 2, 4, 1, 3
    whole = side * (size + jitter) + (side - 1) * gap
    pixels = np.tile(np.arange(whole**2, dtype=np.uint8).reshape(1, whole, whole, 1), (64, 1, 1, 1))
    batch = {"image": jnp.asarray(pixels), "index": jnp.arange(64, dtype=jnp.int32)}
    tiles = dict(side=side, gap=gap, jitter=jitter)
    found = tiles_of(batch, count=4, size=size, tiles=tiles)
    at = places(found, pixels)
    cells = (size + jitter + gap) * np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    moved = at - cells
    assert moved.min() == 0 and moved.max() == jitter
    for view in range(4):
        for axis in range(2):
            assert set(moved[:, view, axis]) == set(range(jitter + 1))
    # Each tile has a place of its own.
    assert not (moved[:, 0] == moved[:, 1]).all(1).all()
    assert (at[:, 1, 1] - (at[:, 0, 1] + size)).min() >= gap


def test_tiles_follow_their_sample_and_share_the_view_they_are_cut_from():
    batch = batch_of(n=6, side=20)
    group = dict(count=4, size=6, tiles=dict(side=2, jitter=2, colour="dropped"), **RANDOM)
    found = tiles_of(batch, **group)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = tiles_of({name: x[order] for name, x in batch.items()}, **group)
    np.testing.assert_array_equal(shuffled, found[order])
    # The same view uncut: all tiles of a sample lie in it.
    plain = dict(count=4, size=6, tiles=dict(side=2), **RANDOM)
    whole = tiles_of(batch, count=1, size=12, **RANDOM)[:, 0]
    cut = tiles_of(batch, **plain)
    top, bottom = (np.concatenate([cut[:, i], cut[:, i + 1]], 2) for i in (0, 2))
    np.testing.assert_allclose(np.concatenate([top, bottom], 1), whole, atol=1e-6)


def test_eight_devices_make_them_without_communication():
    batch = batch_of(n=8)
    dropped = dict(side=2, jitter=2, colour="dropped")
    groups = {
        "turned": dict(count=4, size=8, turns=True, flip=0.5),
        "tiled": dict(count=4, size=4, tiles=dropped, flip=0.5),
    }
    build = jax.jit(image_views.build(ConfigDict(groups), mean=0.0, std=1.0))
    check_eight_devices(build, KEY, batch, atol=1e-6)


def test_normalized_tiles_have_no_colour_of_their_own():
    batch = batch_of(side=16)
    batch["image"] = batch["image"].at[0].set(77)
    tiles = dict(side=2, jitter=2, colour="normalized")
    found = tiles_of(batch, 0.4, 0.3, count=4, size=6, tiles=tiles)
    np.testing.assert_allclose(found[1:].mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found[1:].std((2, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(found[0], 0, atol=1e-3)  # nothing to see stays nothing to see


def test_dropped_colours_leave_one_channel_and_faint_noise():
    batch = batch_of(n=32, side=16)
    group = dict(count=4, size=8)
    found = tiles_of(batch, 0.4, 0.3, tiles=dict(side=2, colour="dropped"), **group)
    plain = tiles_of(batch, 0.4, 0.3, tiles=dict(side=2), **group)
    kept = np.isclose(found, plain).all((2, 3))  # [B, V, 3]
    np.testing.assert_array_equal(kept.sum(-1), 1)
    assert set(kept.argmax(-1).ravel()) == {0, 1, 2}
    share = found.std((2, 3))[~kept].reshape(-1, 2) / plain.std((2, 3))[kept][:, None]
    assert share.min() > 0.005 and share.max() < 0.02
    assert np.abs(found.mean((2, 3))[~kept]).max() < 0.02


def test_tiles_of_a_clip_are_at_one_place_in_all_frames():
    batch = batch_of(n=2, side=12)
    batch["image"] = jnp.repeat(batch["image"][:, None], 3, axis=1)
    found = tiles_of(batch, count=4, size=4, tiles=dict(side=2, jitter=2))
    assert found.shape == (2, 4, 3, 4, 4, 3)
    np.testing.assert_array_equal(found[:, :, 0], found[:, :, 2])


@pytest.mark.parametrize(
    "group, text",
    [
        (dict(count=2, turns=True), r"views\.all\.count: found 2, expected 4 with turns"),
        (dict(count=4, turns=1), r"views\.all\.turns: found 1, expected True or False"),
        (dict(count=4, truns=True), "did you mean 'turns'"),
        (dict(count=4, tiles=dict(side=3)), r"views\.all\.count: found 4, expected 9"),
        (dict(count=9, tiles=dict(sides=3)), r"views\.all\.tiles\.sides.*did you mean 'side'"),
        (dict(count=1, tiles=dict(side=1)), r"views\.all\.tiles\.side: found 1.*>= 2"),
        (dict(count=9, tiles=dict(jitter=-1)), r"views\.all\.tiles\.jitter: found -1"),
        (dict(count=9, tiles=dict(colour="drop")), r"tiles\.colour.*did you mean 'dropped'"),
        (dict(count=9, tiles=3), r"views\.all\.tiles: found 3, expected a dict"),
        (dict(count=4, tiles=dict(side=2), turns=True), r"views\.all\.tiles: found beside turns"),
        (
            dict(count=4, tiles=dict(side=2), low_frequency=dict(size=4)),
            r"views\.all\.low_frequency: found beside tiles",
        ),
    ],
)
def test_groups_that_cannot_be_made_are_refused_in_one_line(group, text):
    with pytest.raises(ConfigError, match=text) as error:
        image_views.build(ConfigDict({"all": dict(size=6, **group)}), mean=0.0, std=1.0)
    assert "\n" not in str(error.value)


def test_colours_cannot_be_dropped_of_gray_images():
    group = dict(count=4, size=4, tiles=dict(side=2, colour="dropped"))
    with pytest.raises(ConfigError, match=r"views\.all\.tiles\.colour: found images of 1 channel"):
        tiles_of(batch_of(channels=1), **group)
