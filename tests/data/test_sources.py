"""Every source: what it reads, that it is what was stored, and what it says when it cannot."""

import pickle

import ml_collections
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jaxssl.config.errors import ConfigError
from jaxssl.data import Part, load
from jaxssl.data.formats import array_record
from jaxssl.data.images import ArraySource, ImageSource, Options, fit, image_fields
from jaxssl.data.sets import digits
from jaxssl.data.source import Arrays
from jaxssl.method import INDEX, LABEL, Field


def config(**fields):
    return ml_collections.ConfigDict(fields)


def check(source, samples, classes, shape):
    assert (len(source), source.num_classes) == (samples, classes)
    sample = source[samples - 1]
    assert sample["index"] == samples - 1 and sample["index"].dtype == np.int32
    assert sample["image"].shape == shape and sample["image"].dtype == np.uint8
    assert source.fields == image_fields(shape, labelled=bool(classes))
    ids = [samples - 1, 0, 0, samples // 2]
    rows = source.rows(ids)
    for place, i in enumerate(ids):
        for key, value in source[i].items():
            np.testing.assert_array_equal(rows[key][place], value)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint == source.fingerprint
    np.testing.assert_array_equal(copy.rows(ids)["image"], rows["image"])
    with pytest.raises(IndexError):
        source[samples]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of random images, 12 by 10 pixels, of three classes in two splits."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (10, 12, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


def test_digits_are_split_by_class_and_disjoint():
    labels = load_digits().target
    train, test = digits.split_rows(labels, "train"), digits.split_rows(labels, "test")
    assert (len(train), len(test)) == (1297, 500)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))
    share = np.bincount(labels[test]) / np.bincount(labels)
    np.testing.assert_allclose(share, 500 / 1797, atol=0.006)
    assert test[:4].tolist() == [0, 9, 13, 14], "a changed split changes every published number"


def test_digits_pixels():
    stored = load(config(source="digits"), "test")
    check(stored, 500, 10, (8, 8, 1))
    rows = digits.split_rows(load_digits().target, "test")
    expected = np.rint(load_digits().images[rows[7]] * 255 / 16)
    np.testing.assert_array_equal(stored[7]["image"][..., 0], expected)
    big = load(config(source="digits", size=16), "test")
    check(big, 500, 10, (16, 16, 1))
    halved = big.images.reshape(500, 8, 2, 8, 2).mean((2, 4))
    assert np.corrcoef(halved.ravel(), stored.images.ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(big.labels, stored.labels)
    assert stored.fingerprint != big.fingerprint


@pytest.mark.parametrize(
    "fields, sizes, classes, shape",
    [
        (dict(source="packed_jpeg", path="cifar10"), (50000, 8000), 10, (32, 32, 3)),
        (
            dict(source="packed_jpeg", path="imagenette128/imagenette128_train.npz", size=64),
            (9469, 2925),
            10,
            (64, 64, 3),
        ),
        (dict(source="npz", path="fashion_mnist", size=32), (30000, 10000), 10, (32, 32, 1)),
        (dict(source="npz", path="pneumoniamnist", channels=3), (4708, 624), 2, (28, 28, 3)),
        (dict(source="tfds:cifar10_mini", path="tfds"), (5000, 1000), 10, (32, 32, 3)),
    ],
)
def test_real_sets(shared, fields, sizes, classes, shape):
    folder = shared / "data" / fields["path"]
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    for split, samples in zip(("train", "test"), sizes):
        check(load(config(**{**fields, "path": str(folder)}), split), samples, classes, shape)


def test_cifar10_labels_belong_to_the_images(shared):
    """Ships and planes are bluer than frogs and deer: a shuffled label would show."""
    folder = shared / "data" / "cifar10"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    source = load(config(source="packed_jpeg", path=str(folder)), "test")
    batch = source.rows(np.arange(1500))
    image = batch["image"].astype(float)
    blueness = (image[..., 2] - image[..., 0]).mean((1, 2))
    names = np.asarray(source.label_names)[batch["label"]]
    blue = blueness[np.isin(names, ("ship", "airplane"))].mean()
    assert blue > blueness[np.isin(names, ("frog", "deer"))].mean() + 15


def test_the_cache_changes_nothing(pictures):
    fields = dict(source="image_folder", path=str(pictures), size=8)
    kept = load(config(**fields, cache="memory"), "train")
    fresh = load(config(**fields, cache="none"), "train")
    assert kept.fingerprint == fresh.fingerprint
    for ids in ([3, 1, 3], [1, 0, 11]):
        for key, value in fresh.rows(ids).items():
            np.testing.assert_array_equal(kept.rows(ids)[key], value)


def test_the_cache_decodes_once(pictures, monkeypatch):
    source = load(config(source="image_folder", path=str(pictures)), "train")
    expected = source.rows([4, 5])["image"]
    monkeypatch.setattr(source, "read", None)
    np.testing.assert_array_equal(source.rows([5, 4])["image"], expected[::-1])


def test_image_folder(pictures):
    train = load(config(source="image_folder", path=str(pictures)), "train")
    check(train, 12, 3, (10, 12, 3))
    assert train.label_names == ("ant", "bee", "cat")
    assert [int(train[i]["label"]) for i in (0, 4, 11)] == [0, 1, 2]
    stored = np.asarray(Image.open(pictures / "train" / "bee" / "2.png"))
    np.testing.assert_array_equal(train[6]["image"], stored)
    test = load(config(source="image_folder", path=str(pictures), channels=1), "test")
    check(test, 6, 3, (10, 12, 1))  # "val" on disk


def test_image_folder_without_splits_or_labels(pictures):
    flat = load(config(source="image_folder", path=str(pictures / "train")), "train")
    check(flat, 12, 3, (10, 12, 3))
    unlabelled = load(config(source="image_folder", path=str(pictures / "train" / "ant")), "train")
    assert unlabelled.num_classes == 0 and set(unlabelled[0]) == {"index", "image"}
    with pytest.raises(ConfigError, match=r"no folder .*test"):
        load(config(source="image_folder", path=str(pictures / "train")), "test")


def test_a_test_class_that_train_lacks_is_an_error(tmp_path):
    for name in ("train/ant", "test/ant", "test/bat"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    with pytest.raises(ConfigError, match=r"bat is no class of .*/train;.*ant"):
        load(config(source="image_folder", path=str(tmp_path)), "test")


def test_images_of_unlike_size_ask_for_a_size(tmp_path):
    for i, side in enumerate((4, 6)):
        Image.new("L", (side, 4)).save(tmp_path / f"{i}.png")
    fields = dict(source="image_folder", path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"sample 1 .*\(4, 6, 1\).*set data\.size"):
        load(config(**fields), "train").rows([0, 1])
    assert load(config(**fields, size=4), "train").rows([0, 1])["image"].shape == (2, 4, 4, 1)


@pytest.mark.smoke
@pytest.mark.parametrize("fields", [{}, {"size": 6, "channels": 1}])
def test_array_record_round_trip(pictures, tmp_path, fields, capsys):
    flags = [f"--{key}={value}" for key, value in fields.items()]
    arguments = ["--source=image_folder", f"--path={pictures}", f"--out={tmp_path}", "--shards=3"]
    assert array_record.main(arguments + flags) == 0
    assert "12 of 12" in capsys.readouterr().out
    for split in ("train", "test"):
        before = load(config(source="image_folder", path=str(pictures), **fields), split)
        after = load(config(source="array_record", path=str(tmp_path)), split)
        check(after, len(before), 3, before.fields["image"].shape)
        assert after.label_names == before.label_names
        ids = np.arange(len(before))
        for key, value in before.rows(ids).items():
            np.testing.assert_array_equal(after.rows(ids)[key], value)


def test_array_record_without_labels_and_with_a_file_missing(tmp_path):
    images = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    array_record.write(ArraySource("plain", images, None), tmp_path, shards=2)
    source = load(config(source="array_record", path=str(tmp_path)), "train")
    assert set(source[0]) == {"index", "image"}
    np.testing.assert_array_equal(source.rows(np.arange(4))["image"][..., 0], images)
    (tmp_path / "train-00001-of-00002.array_record").unlink()
    with pytest.raises(ConfigError, match="1 of 2 train files"):
        load(config(source="array_record", path=str(tmp_path)), "train")


def test_array_record_refuses_other_class_names(tmp_path, capsys):
    images, labels = np.zeros((4, 4, 4), np.uint8), np.arange(4) % 2
    array_record.write(ArraySource("one", images, labels, ("a", "b")), tmp_path)
    with pytest.raises(ConfigError, match="other class names"):
        array_record.write(ArraySource("two", images, labels, ("a", "c")), tmp_path, split="test")
    assert array_record.main(["--source=npz", "--path=/none", f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("error: data.path: /none")


def test_fit_takes_the_centre_square_without_aliasing():
    image = np.zeros((8, 24, 3), np.uint8)
    image[:, 4:20] = (10, 200, 30)
    found = fit(image, Options(size=4))
    np.testing.assert_array_equal(found, np.broadcast_to((10, 200, 30), (4, 4, 3)))
    checker = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.ptp(fit(checker, Options(size=8)).astype(int)) < 40  # sampling would keep 0 or 255


def test_fit_channels():
    grey = np.full((3, 5), 77, np.uint8)
    assert fit(grey, Options()).shape == (3, 5, 1)
    np.testing.assert_array_equal(fit(grey, Options(channels=3)), np.full((3, 5, 3), 77))
    red = np.zeros((2, 2, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    assert fit(red, Options(channels=1))[0, 0, 0] == 76  # 0.299 of 255
    assert fit(Image.new("RGBA", (2, 2), (9, 8, 7, 255)), Options())[0, 0].tolist() == [9, 8, 7]
    with pytest.raises(ConfigError, match="8-bit"):
        fit(Image.new("I;16", (2, 2)), Options())


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(source="packed_jpg"), "data.source: found 'packed_jpg'|did you mean 'packed_jpeg'"),
        (dict(source="pipeline"), "data.source: found 'pipeline', expected a data source|digits"),
        (dict(source="packed_jpeg", path="/none/x"), "data.path: /none/x is not there|_test.npz"),
        (dict(source="npz", path="/none/x"), "data.path: /none/x|expected one npz file"),
        (dict(source="image_folder", path="/none/x"), "data.path: /none/x is not a folder"),
        (
            dict(source="array_record", path="/none/x"),
            "/none/x|python -m jaxssl.data.formats.array_record",
        ),
        (dict(source="tfds:mnist", path="/none/x"), "/none/x|tfds build mnist"),
        (dict(source="digits", size=-1), "data.size: -1"),
        (dict(source="digits", channels=2), "data.channels: 2"),
        (dict(source="digits", cache="memry"), "data.cache: 'memry'|did you mean 'memory'"),
    ],
)
def test_errors_are_one_line_and_name_the_place(fields, words):
    with pytest.raises(ConfigError) as error:
        load(config(**fields), "test")
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words.split("|")), str(error.value)


def test_a_tfds_split_that_is_not_there(shared):
    folder = shared / "data" / "tfds"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    fields = dict(source="tfds:cifar10_mini", path=str(folder), test_split="validation")
    with pytest.raises(ConfigError, match=r"data\.test_split: 'validation'.*train, test"):
        load(config(**fields), "test")


def test_a_cache_larger_than_the_memory_is_refused_before_it_is_filled(shared):
    folder = shared / "data" / "cifar10"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    fields = dict(source="packed_jpeg", path=str(folder), size=4000)
    with pytest.raises(ConfigError, match=r"data\.cache.*GiB.*data\.cache=none"):
        load(config(**fields), "train")
    assert load(config(**fields, cache="none"), "train").fields["image"].shape == (4000, 4000, 3)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_what_is_no_uint8_is_refused_by_name_and_never_cast(dtype):
    class Waveforms(ImageSource):
        def read(self, i):
            return np.linspace(-1, 1, 48).reshape(4, 4, 3).astype(dtype), None

    with pytest.raises(ConfigError) as error:
        Waveforms("waves train", 3, (), Options(), "waves")
    assert str(error.value).startswith(
        f"data.source: sample 0 of waves train is {dtype} [4, 4, 3], expected uint8 pixels"
    )


def test_arrays_of_any_kind_are_kept_as_they_are():
    waves = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    field = Field("audio", (4,), "float32", {"rate": 8000})
    source = Arrays("waves train", {"audio": (field, waves)}, np.array([0, 1, 0]), ("low", "high"))
    assert source.fields == {"index": INDEX, "audio": field, "label": LABEL}
    rows = pickle.loads(pickle.dumps(source)).rows([2, 0])
    np.testing.assert_array_equal(rows["audio"], waves[[2, 0]])
    assert rows["audio"].dtype == np.float32
    assert (rows["index"].tolist(), rows["label"].tolist()) == ([2, 0], [0, 0])
    part = Part(source, np.array([1, 2]))
    assert part.rows([1])["index"].tolist() == [1] and part.fields == source.fields
    np.testing.assert_array_equal(part.rows([1])["audio"], waves[[2]])


@pytest.mark.parametrize(
    "field, values, labels, message",
    [
        (("audio", (4,), "float32"), np.zeros((3, 4)), None, "audio is float64 [3, 4], expected f"),
        (("audio", (5,), "float64"), np.zeros((3, 4)), None, "expected float64 ['N', 5]"),
        (("audio", (4,), "float64"), np.zeros((0, 4)), None, "found {'audio': 0} samples"),
        (
            ("audio", (4,), "float64"),
            np.zeros((3, 4)),
            np.array([0, 2, 0]),
            "is 2; expected a whole",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(field, values, labels, message):
    with pytest.raises(ConfigError) as error:
        Arrays(
            "waves",
            {"audio": (Field(*field), values)},
            labels,
            ("a", "b") if labels is not None else (),
        )
    assert message in str(error.value) and "\n" not in str(error.value)
