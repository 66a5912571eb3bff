"""A part of the training split: what it holds, how it counts, and what it refuses."""

import pickle

import ml_collections
import numpy as np
import pytest

from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.config.skeleton import skeleton
from jaxssl.data import Part, load, pipeline


def config(**fields):
    return ml_collections.ConfigDict(dict(source="digits", **fields))


RANGES = ((100, 130), (0, 20))
STORED = [*range(20), *range(100, 130)]


@pytest.mark.smoke
@pytest.mark.parametrize("size", [0, 6])
def test_only_the_ranges_are_there_and_the_test_split_is_whole(size):
    whole, part = load(config(size=size), "train"), load(config(size=size, ranges=RANGES), "train")
    assert isinstance(part, Part) and len(part) == 50 and part.num_classes == 10
    np.testing.assert_array_equal(part.stored(np.arange(50)), STORED)
    assert part.stored([49, 0]).tolist() == [129, 0]
    found, expected = part.rows(np.arange(50)), whole.rows(np.array(STORED))
    for name in ("image", "label"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(found["index"], np.arange(50))
    assert found["index"].dtype == np.int32
    test = [load(config(size=size, **more), "test") for more in ({}, {"ranges": RANGES})]
    assert test[0].fingerprint == test[1].fingerprint and len(test[1]) == 500


def test_an_epoch_has_every_sample_of_the_part_once_with_its_own_number():
    part = load(config(ranges=RANGES), "train")
    seen = [pipeline.batch_at(part, step, seed=0, global_batch=10) for step in range(5)]
    index = np.concatenate([batch["index"] for batch in seen])
    np.testing.assert_array_equal(np.sort(index), np.arange(50))  # rows of a table by sample
    images = np.concatenate([batch["image"] for batch in seen])
    whole = load(config(), "train")
    np.testing.assert_array_equal(images, whole.rows(part.stored(index))["image"])


def test_parts_are_told_apart_and_are_pickled():
    part = load(config(ranges=RANGES), "train")
    same = load(config(ranges=((0, 10), (10, 20), (100, 130))), "train")
    other = load(config(ranges=((0, 50),)), "train")
    assert part.fingerprint == same.fingerprint != other.fingerprint
    assert load(config(), "train").fingerprint not in (part.fingerprint, other.fingerprint)
    copy = pickle.loads(pickle.dumps(part))
    assert copy.fingerprint == part.fingerprint
    np.testing.assert_array_equal(copy.rows([3, 40])["image"], part.rows([3, 40])["image"])


@pytest.mark.parametrize(
    "ranges, words",
    [
        (((0, 1298),), "found (0, 1298)|0 <= first < last <= 1297"),
        (((-1, 5),), "found (-1, 5)"),
        (((5, 5),), "found (5, 5)|first < last"),
        ((0, 100), "found 0|(first, last)"),
        (((0, 10, 20),), "found (0, 10, 20)"),
        (((0, 1.5),), "found (0, 1.5)"),
        (((50, 60), (0, 10), (9, 20)), "found (0, 10) and (9, 20), which overlap"),
    ],
)
def test_bad_ranges_are_one_line(ranges, words):
    with pytest.raises(ConfigError) as error:
        load(config(ranges=ranges), "train")
    text = str(error.value)
    assert text.startswith("data.ranges: ") and "\n" not in text
    assert all(word in text for word in words.split("|")), text


def test_ranges_make_another_run_and_come_back_from_json():
    plain = skeleton()
    with plain.unlocked():
        plain.method = "composed"
    part = configs.merged(plain, {"data.ranges": RANGES})
    old, new = configs.to_dict(plain), configs.to_dict(part)
    assert configs.differences(old, new) == ["data.ranges: [] -> [[100, 130], [0, 20]]"]
    del old["data"]["ranges"]  # a run of before there were ranges
    assert configs.differences(old, configs.to_dict(plain)) == []
    assert configs.from_dict(new).data.ranges == RANGES
    assert configs.from_dict(old).data.ranges == ()
