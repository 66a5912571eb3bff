"""Fields of `config.data` that are wrong: one line that names the field."""

import numpy as np
import pytest
from data.damaged import IMAGES, npz, opened, refused

from jaxssl.data.images import ArraySource, ImageSource, Options


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(size="8"), "data.size: '8'"),
        (dict(size=True), "data.size: True"),
        (dict(size=2.5), "data.size: 2.5"),
        (dict(frames=-2), "data.frames: -2"),
        (dict(frames="two"), "data.frames: 'two'"),
        (dict(frames=3), "data.frames: found 3"),
        (dict(channels=True), "data.channels: True"),
        (dict(channels="rgb"), "data.channels: 'rgb'"),
        (dict(cache=7), "data.cache: 7"),
        (dict(on_bad_record="skipp"), "data.on_bad_record: 'skipp'|did you mean 'skip'"),
        (dict(on_bad_record=3), "data.on_bad_record: 3"),
        (dict(ranges=5), "data.ranges: found 5"),
        (dict(ranges=((0, None),)), "data.ranges: found"),
        (dict(source=None), "data.source: found 'None'"),
        (dict(source=3), "data.source: found '3'"),
        (dict(source="../digits"), "data.source: found '../digits'"),
        (dict(source="coloured_digits", size=1), "data.size: found 1"),
    ],
)
def test_wrong_fields_are_named(fields, words):
    refused(lambda: opened(**dict(source="digits") | fields), *words.split("|"))


STORED = ("npz", "packed_jpeg", "camvid", "em_volume", "image_folder", "array_record")


@pytest.mark.parametrize("source", STORED)
@pytest.mark.parametrize("path", [None, 5, "", "a\0b", "~nobody-has-this-name/x", "x" * 5000])
def test_paths_that_are_none_are_named(source, path):
    refused(lambda: opened(source=source, path=path), "data.path")


@pytest.mark.parametrize("source", STORED)
def test_a_file_for_a_folder_and_the_reverse_are_named(tmp_path, source):
    (file := tmp_path / "file").write_text("")
    (folder := tmp_path / "folder.npz").mkdir()
    refused(lambda: opened(source=source, path=str(file)), "data.path: ", tmp_path)
    refused(lambda: opened(source=source, path=str(folder)), "data.path: ", tmp_path)


@pytest.mark.parametrize("source", ["image_folder", "array_record", "npz"])
@pytest.mark.parametrize("named", [5, "tr*", "/etc", "../train", "a/../../b"])
def test_a_split_stays_in_its_folder(tmp_path, source, named):
    npz(tmp_path / "x.npz", x_train=IMAGES)
    read = lambda: opened(source=source, path=str(tmp_path), train_split=named)
    refused(read, "data.train_split: found", repr(named))


def test_arrays_whose_channels_cannot_be_resized_are_named():
    make = lambda: ArraySource("maps", np.zeros((3, 4, 4, 5), np.uint8), None, opts=Options(size=2))
    refused(make, "sample 0 of maps", "5 channels")
    assert ArraySource("maps", np.zeros((3, 4, 4, 5), np.uint8), None)[0]["image"].shape == (
        4,
        4,
        5,
    )


def test_a_sample_without_its_label_is_named():
    class Half(ImageSource):
        def read(self, i):
            return np.zeros((2, 2), np.uint8), None if i == 2 else 0

    source = Half("half", 4, ("a",), Options(), None)
    refused(lambda: source.rows([1, 2]), "sample 2 of half", "no label")
