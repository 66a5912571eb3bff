"""Views of clips and volumes: one draw for a view, alike on all its frames."""

import image_views
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxssl.config.errors import ConfigError
from jaxssl.modalities.image import plain as plain_view

GROUPS = {
    "global": {
        "count": 2,
        "size": 8,
        "crop": {"scale": (0.3, 1.0)},
        "flip": 0.5,
        "affine": {"rotation": 20.0},
        "elastic": {"sigma": 0.05},
        "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
        "grayscale": 0.5,
        "blur": {"probability": 0.5, "taps": 5},
        "solarize": {"probability": 0.5},
    },
    "local": {"count": 1, "size": 6, "pad_crop": {"padding": 2}, "vertical_flip": 0.5},
}
KEY = jax.random.key(5)
B, T = 4, 3


def batch_of(frames=T, side=10, channels=3):
    """Clips of identical frames."""
    pixels = np.random.default_rng(0).integers(0, 256, (B, 1, side, side, channels))
    clips = np.broadcast_to(pixels, (B, frames, side, side, channels))
    return {"image": jnp.asarray(clips, jnp.uint8), "index": jnp.arange(B) + 7}


def make(groups, batch, **options):
    build = image_views.build(ConfigDict(groups), mean=0.5, std=0.25, **options)
    return jax.tree.map(np.asarray, jax.jit(build)(KEY, batch))


def test_identical_frames_stay_identical_and_are_the_views_of_the_image():
    batch = batch_of()
    out = make(GROUPS, batch)
    assert out["global"].shape == (B, 2, T, 8, 8, 3) and out["local"].shape == (B, 1, T, 6, 6, 3)
    still = make(GROUPS, batch | {"image": batch["image"][:, 0]})
    for group, got in out.items():
        for frame in range(T):
            np.testing.assert_allclose(got[:, :, frame], still[group], atol=1e-5)
    assert np.abs(out["global"][:, 0] - out["global"][:, 1]).max() > 0.1


def test_frames_keep_their_order():
    batch = batch_of()
    values = jnp.arange(T, dtype=jnp.uint8)[:, None, None, None] * 50
    batch["image"] = jnp.broadcast_to(values, batch["image"].shape)
    group = {"count": 1, "size": 8, "crop": {}, "flip": 0.5}
    out = make({"all": group}, batch)["all"][:, 0] * 0.25 + 0.5
    expected = np.broadcast_to(np.arange(T) * 50 / 255, (B, T))
    np.testing.assert_allclose(out.mean((2, 3, 4)), expected, atol=1e-5)


def test_noise_differs_between_frames_with_one_strength():
    batch = batch_of()
    batch["image"] = jnp.full_like(batch["image"], 128)
    group = {"count": 1, "size": 10, "noise": {"sigma": 0.2}}
    clip = make({"all": group}, batch)["all"][:, 0]
    assert np.abs(clip[:, 0] - clip[:, 1]).max(axis=(1, 2, 3)).min() > 0.01
    spread = clip.std((2, 3, 4))
    np.testing.assert_allclose(spread / spread.mean(1, keepdims=True), 1, atol=0.2)
    assert spread.mean(1).max() > 1.5 * spread.mean(1).min()


def test_the_evaluation_view_is_that_of_every_frame():
    image = np.random.default_rng(1).integers(0, 256, (B, T, 8, 8, 1)).astype(np.uint8)
    clip = plain_view(jnp.asarray(image), size=4, data={"mean": 0.5, "std": 0.25})
    assert clip.shape == (B, T, 4, 4, 1)
    for frame in range(T):
        one = plain_view(jnp.asarray(image[:, frame]), size=4, data={"mean": 0.5, "std": 0.25})
        np.testing.assert_allclose(clip[:, frame], one, atol=1e-6)


def test_other_ranks_are_refused():
    build = image_views.build(ConfigDict(GROUPS), mean=0.5, std=0.25)
    batch = batch_of()
    with pytest.raises(ConfigError, match=r"image: .*\[B, H, W, C\] or \[B, T, H, W, C\]"):
        build(KEY, batch | {"image": batch["image"][0, 0]})
