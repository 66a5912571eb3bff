"""Masks of pixels and of order: what they overwrite, and that a field says so."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses, masks
from jaxssl.config.errors import ConfigError
from jaxssl.masks import MaskInput, Setting
from jaxssl.targets.pixels import patchify

B, V, SIDE, C = 6, 2, 16, 3
SETTING = Setting((4, 4), 10, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def build(setting=SETTING, **entry):
    return masks.build(entry, setting=setting, field="masks.m")


@functools.cache
def given(first=0):
    """Views without a zero, so that one put out can be told, from sample `first` on."""
    pixels = np.random.default_rng(0).uniform(1, 2, (B + 2, V, SIDE, SIDE, C))
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(jax.random.key(1), i), V))
    x = jnp.asarray(pixels[first : first + B], jnp.float32)
    return MaskInput(x, keys(first + jnp.arange(B)), jax.random.key(2), jnp.int32(0))


@functools.cache
def hidden(**entry):
    mask = build(**entry)
    fields = jax.jit(mask.hide)(given())
    assert tuple(fields) and set(fields) == set(mask.fields)
    return fields


def test_groups_of_zeros_cover_the_area_and_one_rectangle_more_at_most():
    fields = hidden(name="group", replaced=0.0)
    share = fields["pixels"].mean((2, 3))
    assert (share >= 0.5).all() and (share <= 0.5 + 0.09 + 1e-6).all()
    put_out = (fields["x"] == 0).all(-1)
    np.testing.assert_array_equal(put_out, fields["pixels"])
    kept = ~fields["pixels"][..., None]
    np.testing.assert_array_equal(fields["x"] * kept, given().x * kept)


def test_groups_of_another_sample_are_its_pixels_at_the_same_places():
    fields = hidden(name="group", replaced=1.0)
    share = fields["pixels"].mean((2, 3))
    assert (share >= 0.3).all() and (share <= 0.3 + 0.09 + 1e-6).all()
    x, seen = np.asarray(given().x), np.asarray(fields["x"])
    for b in range(B):
        for v in range(V):
            place = np.asarray(fields["pixels"][b, v])
            sources = [n for n in range(B) if (x[n, v][place] == seen[b, v][place]).all()]
            assert len(sources) == 1  # perhaps itself: its pixels count as hidden all the same
            np.testing.assert_array_equal(seen[b, v][~place], x[b, v][~place])


def test_groups_on_a_lattice():
    places = np.asarray(hidden(name="group", align=4, side=0.5)["pixels"])
    cells = places.reshape(B, V, 4, 4, 4, 4)
    np.testing.assert_array_equal(cells, np.broadcast_to(cells[:, :, :, :1, :, :1], cells.shape))


def test_patches_say_which_numbers_of_the_target_are_hidden():
    fields = hidden(name="group")
    merge = lambda a: a.reshape(B * V, *a.shape[2:])
    every = jnp.broadcast_to(fields["pixels"][..., None], given().x.shape)
    patches = merge(fields["patches"])
    np.testing.assert_array_equal(patches, patchify(merge(every), 4))
    # The error of the pixels is that of the patches' numbers.
    x, y = merge(given().x), merge(fields["x"])
    by_pixel = losses.simmim(y, x, merge(fields["pixels"]))
    by_patch = losses.simmim(patchify(y, 4), patchify(x, 4), patches)
    np.testing.assert_allclose(by_patch, by_pixel, rtol=1e-5)
    assert by_pixel > 0
    # What stands outside of the mask changes nothing.
    off = jnp.where(patches, patchify(y, 4), 7.0)
    np.testing.assert_allclose(losses.simmim(off, patchify(x, 4), patches), by_patch, rtol=1e-6)
    assert losses.simmim(patchify(x, 4), patchify(x, 4), patches) == 0


def test_without_patches_there_is_no_such_field():
    assert build(SETTING._replace(grid=()), name="group").fields == ("pixels", "x")


@pytest.mark.parametrize("name", ["group", "region"])
def test_places_go_with_the_sample(name):
    mask = build(name=name, **(dict(place="random") if name == "region" else {}))
    here, there = (mask.hide(given(first))["pixels"] for first in (0, 2))
    np.testing.assert_array_equal(here[2:], there[:-2])
    assert (here[0, 0] != here[0, 1]).any()


def test_the_region_in_the_middle():
    fields = hidden(name="region", side=0.5, fill=-1.0)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[4:12, 4:12] = True
    np.testing.assert_array_equal(fields["pixels"], np.broadcast_to(expected, (B, V, SIDE, SIDE)))
    np.testing.assert_array_equal((fields["x"] == -1).all(-1), fields["pixels"])


def test_regions_anywhere_are_whole_squares():
    places = np.asarray(hidden(name="region", side=0.25, place="random")["pixels"])
    assert (places.sum((2, 3)) == 16).all()
    assert (places.any(2).sum(-1) == 4).all() and (places.any(3).sum(-1) == 4).all()
    assert len(np.unique(places.reshape(B * V, -1), axis=0)) > 1


def test_gray_keeps_the_luminance_and_no_colour():
    mean, std = (jnp.asarray(a) for a in (SETTING.mean, SETTING.std))
    x = hidden(name="gray")["x"]
    assert x.shape == given().x.shape
    shown, clean = x * std + mean, given().x * std + mean
    np.testing.assert_allclose(shown[..., :1].repeat(3, -1), shown, rtol=1e-5)
    np.testing.assert_allclose(shown[..., 0], clean @ jnp.array([0.299, 0.587, 0.114]), rtol=1e-3)


def test_the_order_is_one_for_all_views_and_uniform():
    mask = build(name="shuffle", count=4)
    keys = jax.random.split(jax.random.key(5), (800, V))
    order = mask.hide(given()._replace(keys=keys))["order"]
    assert order.shape == (800, V) and (order[:, 0] == order[:, 1]).all()
    share = np.bincount(np.asarray(order[:, 0]), minlength=4) / 800
    assert len(share) == 4 and (abs(share - 0.25) < 0.06).all()


@pytest.mark.parametrize(
    "entry, message",
    [
        (dict(name="group", area=0.0), "masks.m.area: found 0.0"),
        (dict(name="group", replaced=2.0), "masks.m.replaced: found 2.0"),
        (dict(name="group", align=0), "masks.m.align: found 0"),
        (dict(name="region", side=1.0), "masks.m.side: found 1.0"),
        (dict(name="region", place="middle"), "masks.m.place: found 'middle'"),
        (dict(name="shuffle", count=1), "masks.m.count: found 1"),
    ],
)
def test_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        build(**entry)
