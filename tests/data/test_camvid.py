"""Scenes with labels of pixels: what is read, and that labels are cut as their image is."""

import io
import pickle

import ml_collections
import numpy as np
import pytest
from PIL import Image

from jaxssl.config.errors import ConfigError
from jaxssl.data import load, pipeline
from jaxssl.data.images import image_fields
from jaxssl.data.sets import camvid
from jaxssl.method import Field

NAMES = ("sky", "road", "void")


def write(folder, split, images, masks, names=NAMES):
    """Lossless images, so that pixels can be compared."""
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    offsets = np.cumsum([0] + [len(file) for file in files])
    arrays = dict(jpeg=np.concatenate(files), offsets=offsets, masks=masks)
    np.savez(folder / f"camvid_{split}.npz", **arrays, label_names=np.array(names))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        masks = rng.integers(0, 3, (count, 8, 12)).astype(np.uint8)
        images = np.repeat(masks[..., None] * np.uint8(100), 3, axis=-1)
        write(tmp_path, split, images, masks)
    return tmp_path


def opened(folder, split="train", **fields):
    return load(ml_collections.ConfigDict(dict(source="camvid", path=str(folder), **fields)), split)


def test_every_pixel_has_its_label_and_a_scene_has_none(folder):
    source = opened(folder)
    assert len(source) == 5 and source.num_classes == 0 and len(opened(folder, "test")) == 3
    assert source.pixel_label_names == ("sky", "road")
    labels = Field("mask", (8, 12), "uint8")
    assert source.fields == {**image_fields((8, 12, 3), labelled=False), "labels": labels}
    assert "label" not in source[0]
    np.testing.assert_array_equal(100 * source[4]["labels"], source[4]["image"][..., 0])


@pytest.mark.parametrize("size", [8, 4, 16])
def test_labels_are_cut_and_resized_as_the_image_is(folder, size):
    source = opened(folder, size=size)
    rows = source.rows([3, 0])
    assert rows["labels"].shape == (2, size, size) and rows["labels"].max() <= 2
    stored = np.load(folder / "camvid_train.npz")["masks"][[3, 0]]
    expected = [
        np.asarray(Image.fromarray(m).resize((size, size), Image.Resampling.NEAREST, (2, 0, 10, 8)))
        for m in stored
    ]
    np.testing.assert_array_equal(rows["labels"], expected)
    if size == 8:
        np.testing.assert_array_equal(100 * rows["labels"], rows["image"][..., 0])


def test_batches_carry_the_labels_and_the_masks_are_part_of_what_the_set_is(folder):
    source = opened(folder, size=8)
    for batch in (
        next(pipeline.batches(source, seed=0, global_batch=4, threads=0)),
        next(pipeline.eval_batches(source, 4)),
    ):
        np.testing.assert_array_equal(100 * batch["labels"], batch["image"][..., 0])
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint == source.fingerprint == opened(folder, size=8).fingerprint
    arrays = dict(np.load(folder / "camvid_train.npz"))
    arrays["masks"][-1, 0, 0] ^= 1
    np.savez(folder / "camvid_train.npz", **arrays)
    assert opened(folder, size=8).fingerprint != source.fingerprint


def test_what_is_missing_is_one_line(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path: .*expected the folder with camvid_train"):
        opened(tmp_path / "none")
    arrays = dict(np.load(folder / "camvid_train.npz"))
    np.savez(folder / "camvid_train.npz", **{**arrays, "masks": arrays["masks"][:2]})
    with pytest.raises(ConfigError, match="5 images and 2 masks"):
        opened(folder)
    np.savez(folder / "camvid_train.npz", **{k: v for k, v in arrays.items() if k != "masks"})
    with pytest.raises(ConfigError, match="has no 'masks'"):
        opened(folder)


def test_the_real_scenes(shared):
    folder = shared / "data" / "camvid"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    source = opened(folder, "test", size=60)
    assert len(source) == 233 and source.pixel_label_names[0] == "sky"
    assert len(source.pixel_label_names) == 11 and camvid.VOID not in source.pixel_label_names
    batch = source.rows(range(40))
    assert batch["image"].shape == (40, 60, 60, 3) and batch["labels"].max() == 11
    height = lambda name: np.nonzero(batch["labels"] == source.pixel_label_names.index(name))[1]
    assert height("sky").mean() < 25 < 40 < height("road").mean()
