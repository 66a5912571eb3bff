"""Maps of tokens: colours that mean the same in every image."""

import numpy as np
import pytest

from jaxssl.report import patches


def test_components_are_those_of_all_tokens_together():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(4, 9, 6)) * np.array([9, 6, 3, 0.1, 0.1, 0.1]) + 5
    flat = tokens.reshape(-1, 6) - tokens.reshape(-1, 6).mean(0)
    u, s, _ = np.linalg.svd(flat, full_matrices=False)
    colours = patches.components(tokens).reshape(-1, 3).astype(float)
    for i in range(3):
        score = u[:, i] * s[i]
        inside = (colours[:, i] > 0) & (colours[:, i] < 255)
        line = np.polyfit(score[inside], colours[inside, i], 1)
        np.testing.assert_allclose(np.polyval(line, score[inside]), colours[inside, i], atol=1)
        assert 1 <= (~inside).sum() <= 4  # two percent of 36 at each end


def test_the_same_token_has_the_same_colour_in_every_image():
    tokens = np.random.default_rng(0).normal(size=(2, 16, 8))
    tokens[1, 3] = tokens[0, 11]
    colours = patches.components(tokens)
    assert (colours[1, 3] == colours[0, 11]).all()


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_collapsed_and_broken_tokens_are_grey(value):
    assert (patches.components(np.full((2, 4, 5), value)) == 128).all()


def test_one_outlier_does_not_grey_the_rest():
    tokens = np.random.default_rng(0).normal(size=(8, 16, 4))
    tokens[0, 0] = 1e4
    assert patches.components(tokens)[1:, :, 0].std() > 20


def test_pictures_place_tokens_row_by_row_beside_the_image():
    images = np.zeros((2, 8, 16, 1), np.uint8)
    tokens = np.zeros((2, 8, 3))
    tokens[:, 1, 0] = 1.0  # row 0, column 1 of 2 x 4
    captions, shown = patches.pictures(images, {"trained": tokens})
    assert captions == ("image", "trained") and shown.dtype == np.uint8
    assert shown.shape == (2, 2, 48, 96, 3) and not shown[:, 0].any()
    lit = shown[0, 1, :, :, 0] == 255
    assert lit[:24, 24:48].all() and lit.sum() == 24 * 24


@pytest.mark.parametrize(
    ("shape", "count"), [((2, 8, 8, 3), 17), ((2, 8, 8, 3), 1), ((2, 4, 8, 8, 3), 16)]
)
def test_no_grid_no_pictures(shape, count):
    images = np.zeros(shape, np.uint8)
    assert patches.pictures(images, {"trained": np.zeros((2, count, 4))}) is None
