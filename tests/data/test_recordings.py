"""Spoken digits and ESC-10: splits as their authors made them; ragged recordings; clear errors."""

import builtins
import pickle

import ml_collections
import numpy as np
import pytest

from jaxssl.config import recipes
from jaxssl.config.errors import ConfigError
from jaxssl.data import load
from jaxssl.data.sets import esc10
from jaxssl.method import Field


def config(**fields):
    return ml_collections.ConfigDict(fields)


def write_fsdd(folder, **changes):
    """Six recordings of 3, 8, 5, ... samples."""
    lengths = [3, 8, 5, 1, 2, 4]
    arrays = dict(
        audio=np.arange(1, sum(lengths) + 1, dtype=np.int16),
        offsets=np.cumsum([0, *lengths]),
        sample_rate=np.int32(8000),
        digit=np.arange(6, dtype=np.uint8),
        split=np.array(["train", "train", "test", "train", "test", "train"]),
    )
    arrays.update(changes)
    np.savez(folder / "fsdd.npz", **{n: x for n, x in arrays.items() if x is not None})
    return config(source="fsdd", path=str(folder), size=6)


def test_shorter_recordings_end_in_zeros_and_longer_ones_lose_both_ends(tmp_path):
    source = load(write_fsdd(tmp_path), "train")
    rows = source.rows([0, 1, 2, 3])
    assert rows["audio"].dtype == np.int16
    assert rows["audio"].tolist() == [
        [1, 2, 3, 0, 0, 0],
        [5, 6, 7, 8, 9, 10],
        [17, 0, 0, 0, 0, 0],
        [20, 21, 22, 23, 0, 0],
    ]
    assert rows["audio_length"].tolist() == [3, 6, 1, 4]
    assert rows["audio_length"].dtype == np.int32
    assert rows["label"].tolist() == [0, 1, 3, 5]
    assert source.fields["audio"] == Field("audio", (6,), "int16", {"rate": 8000})
    assert source.label_names == tuple("0123456789")
    assert pickle.loads(pickle.dumps(source)).fingerprint == source.fingerprint
    assert load(write_fsdd(tmp_path), "test").rows([0, 1])["label"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digit": None}, "fsdd.npz has no 'digit'; found"),
        ({"audio": np.zeros(23, np.float32)}, "fsdd.npz: audio is float32; expected int16"),
        ({"audio": np.zeros(20, np.int16)}, "fsdd.npz: offsets do not rise from 0 to 20"),
        ({"digit": np.zeros(5, np.uint8)}, r"fsdd.npz: digit is uint8 \[5\]; expected \[6\]"),
        ({"split": np.array(["x"] * 6)}, "fsdd.npz: found .* 0"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=r"data\.path: .*" + message) as raised:
        load(write_fsdd(tmp_path, **changes), "train")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["fsdd", "esc10"])
def test_what_is_not_there_and_bad_sizes_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"data\.path: .*{name}\.npz|No such file"):
        load(config(source=name, path=str(tmp_path / name)), "train")
    with pytest.raises(ConfigError, match=r"data\.size: found -1"):
        load(config(source=name, path=str(tmp_path), size=-1), "train")
    with pytest.raises(ConfigError, match=r"data\.path: found ''"):
        load(config(source=name), "train")


def test_a_missing_decoder_is_named(monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "soundfile":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"data\.source: 'esc10' needs .*jaxssl\[audio\]"):
        esc10.decode(np.zeros(4, np.uint8), 16_000, "clip 0")


def test_what_is_no_sound_is_refused_by_its_place():
    pytest.importorskip("soundfile")
    with pytest.raises(ConfigError, match=r"data\.path: clip 7 cannot be decoded") as raised:
        esc10.decode(np.zeros(64, np.uint8), 16_000, "clip 7")
    assert "\n" not in str(raised.value)


def test_fsdd_is_split_by_its_own_rule(shared):
    file = shared / "data" / "fsdd" / "fsdd.npz"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    with np.load(file) as arrays:
        take, audio, offsets = arrays["take"], arrays["audio"], arrays["offsets"]
    for split, count, wanted in (("train", 2250, take >= 5), ("test", 250, take < 5)):
        source = load(config(source="fsdd", path=str(file)), split)
        assert (len(source), source.num_classes, wanted.sum()) == (count, 10, count)
        rows = source.rows(np.arange(count))
        assert np.bincount(rows["label"]).tolist() == [count // 10] * 10
        lengths = np.diff(offsets)[wanted]
        np.testing.assert_array_equal(rows["audio_length"], np.minimum(lengths, 8000))
        first = offsets[:-1][wanted][0]
        np.testing.assert_array_equal(
            rows["audio"][0, : lengths[0]], audio[first : first + lengths[0]]
        )


def test_esc10_is_split_by_folds(shared):
    folder = shared / "data" / "esc10"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    soundfile = pytest.importorskip("soundfile")
    source = load(config(source="esc10", path=str(folder)), "test")
    assert (len(source), source.num_classes) == (80, 10) and source.label_names[0] == "dog"
    assert source.fields["audio"] == Field("audio", (80_000,), "float32", {"rate": 16_000})
    rows = source.rows(np.arange(80))
    assert np.bincount(rows["label"]).tolist() == [8] * 10
    with np.load(folder / "esc10.npz") as arrays:
        samples, fold = arrays["num_samples"], arrays["fold"]
    np.testing.assert_array_equal(rows["audio_length"], np.minimum(samples[fold == 5], 80_000))
    assert 0.1 < np.abs(rows["audio"]).max() < 1.5 and soundfile.__version__
    one = config(source="esc10", path=str(folder), size=100, train_split="3", test_split="6")
    assert len(load(one, "train")) == 80
    with pytest.raises(ConfigError, match=r"data\.test_split: found '6', expected folds"):
        load(one, "test")


@pytest.mark.parametrize("name", ["fsdd", "esc10"])
def test_presets_name_what_there_is(name):
    preset = recipes.base(name)
    assert preset.data.source == name and preset.encoder.rate == (8000 if name == "fsdd" else 16000)
