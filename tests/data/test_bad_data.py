"""Data that are damaged or wrong: one line that names the file and the record."""

import io
import pickle
import shutil

import numpy as np
import pytest
from data.damaged import IMAGES, LABELS, folder_of, image_bytes, npz, opened, refused
from PIL import Image

from jaxssl.data import pipeline
from jaxssl.data.formats import array_record
from jaxssl.data.images import ArraySource
from jaxssl.data.order import Order

BIG = b"P6\n30000 30000\n255\n"
CASES = {  # file name -> what is stored there
    "cut.png": image_bytes()[:300],
    "cut.jpg": image_bytes("JPEG")[:500],
    "header.png": image_bytes()[:20],
    "flipped.png": image_bytes()[:60] + bytes(200) + image_bytes()[260:],
    "empty.jpg": b"",
    "text.jpg": b"<html>not found</html>",
    "bomb.png": BIG,
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_image_file_is_named(tmp_path, name):
    (tmp_path / "0.png").write_bytes(image_bytes())
    (tmp_path / name).write_bytes(CASES[name])
    source = opened(source="image_folder", path=str(tmp_path))
    line = refused(lambda: source.rows([0, 1]), "data.path: ", tmp_path / name, "cannot be decoded")
    assert source.bad_records == [line]
    assert source.rows([0])["image"].shape == (1, 16, 16, 3)


def test_a_file_that_cannot_be_reached_is_no_bad_record(tmp_path):
    fields = folder_of(tmp_path)
    source = opened(**fields, on_bad_record="skip")
    (gone := tmp_path / "train" / "ant" / "03.png").unlink()
    refused(lambda: source.rows([2, 3]), gone, "No such file")
    gone.mkdir()
    refused(lambda: source.rows([3]), gone, "Is a directory")
    assert source.bad_records == []  # it may be back tomorrow, and the batches must not change


def test_images_of_16_bits_are_named(tmp_path):
    (tmp_path / "0.png").write_bytes(image_bytes())
    Image.new("I;16", (16, 16)).save(tmp_path / "1.png")
    source = opened(source="image_folder", path=str(tmp_path))
    refused(lambda: source.rows([1]), tmp_path / "1.png", "8-bit")


def test_an_image_of_another_shape_is_named_and_never_skipped(tmp_path):
    (tmp_path / "0.png").write_bytes(image_bytes())
    (tmp_path / "1.png").write_bytes(image_bytes(side=12))
    source = opened(source="image_folder", path=str(tmp_path), on_bad_record="skip")
    refused(lambda: source.rows([0, 1]), tmp_path / "1.png", "set data.size")


def test_folders_without_images_or_with_one_class(tmp_path):
    fields = folder_of(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    refused(lambda: opened(**fields), tmp_path / "train" / "cat", "without an image")
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train").mkdir()
    refused(lambda: opened(**fields), tmp_path / "train", "holds no image")
    (tmp_path / "train" / "ant").mkdir()
    (tmp_path / "train" / "ant" / "0.png").write_bytes(image_bytes())
    source = opened(**fields)  # no labels are needed to learn from
    assert source.num_classes == 1 and source[0]["label"] == 0


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    fields = folder_of(tmp_path)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    refused(lambda: opened(**fields), "data.path: ", tmp_path / "train", "Permission denied")


@pytest.mark.parametrize("source", ["npz", "packed_jpeg", "camvid", "em_volume"])
@pytest.mark.parametrize("damage", ["empty", "cut", "text", "npy"])
def test_a_file_that_is_no_npz_is_named(tmp_path, source, damage):
    names = {"packed_jpeg": "x_train", "camvid": "camvid_train", "em_volume": "em_membrane"}
    file = npz(tmp_path / f"{names.get(source, 'x')}.npz", x_train=IMAGES, y_train=LABELS)
    whole = file.read_bytes()
    array = io.BytesIO()
    np.save(array, IMAGES)
    contents = dict(empty=b"", cut=whole[: len(whole) // 2], text=b"gone", npy=array.getvalue())
    file.write_bytes(contents[damage])
    refused(lambda: opened(source=source, path=str(tmp_path)), file, "npz")


def test_a_damaged_member_is_named(tmp_path):
    file = npz(tmp_path / "x.npz", x_train=IMAGES + 7, y_train=LABELS)
    content = bytearray(file.read_bytes())
    place = content.index(bytes([7] * 96))
    content[place] = 9
    file.write_bytes(content)
    refused(lambda: opened(source="npz", path=str(file)), file, "x_train", "damaged", "CRC")


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("member", ["x_train", "y_train", "label_names"])
def test_nothing_is_unpickled(tmp_path, member):
    arrays = dict(x_train=IMAGES, y_train=LABELS, label_names=np.array(["a", "b", "c"]))
    sprung = tmp_path / "sprung"
    arrays[member] = np.array([Trap(sprung)], object)
    file = npz(tmp_path / "x.npz", **arrays)
    sprung.unlink(missing_ok=True)
    refused(lambda: opened(source="npz", path=str(file)), file, member, "never unpickled")
    assert not sprung.exists()


def test_a_bare_pickle_is_not_read(tmp_path):
    sprung = tmp_path / "sprung"
    (tmp_path / "x.npz").write_bytes(pickle.dumps(Trap(sprung)))
    refused(lambda: opened(source="npz", path=str(tmp_path)), tmp_path / "x.npz", "no npz file")
    assert not sprung.exists()


FLOAT = np.array([0, 1, 2, 0, 1, 2], float)


@pytest.mark.parametrize(
    "arrays, words",
    [
        (dict(y_train=LABELS), "expected x_train"),
        (dict(x_train=IMAGES[:0], y_train=LABELS[:0]), "no samples"),
        (dict(x_train=IMAGES[0]), "[4, 4]|expected uint8"),
        (dict(x_train=IMAGES[:, :0]), "[6, 0, 4]"),
        (dict(x_train=IMAGES / 255), "float64|expected uint8"),
        (dict(x_train=np.full((6, 4, 4), np.nan, np.float32)), "float32|expected uint8"),
        (dict(x_train=IMAGES, y_train=LABELS[:5]), "y_train|[5]|[6]"),
        (dict(x_train=IMAGES, y_train=np.eye(6)), "[6, 6]"),
        (dict(x_train=IMAGES, y_train=np.array(["a"] * 6)), "<U1"),
        (dict(x_train=IMAGES, y_train=FLOAT / [1, 1, 1, 1, 1, np.nan]), "[5] is nan"),
        (dict(x_train=IMAGES, y_train=np.where(LABELS == 2, np.inf, FLOAT)), "[2] is inf"),
        (dict(x_train=IMAGES, y_train=FLOAT * 1.5), "[1] is 1.5"),
        (dict(x_train=IMAGES, y_train=LABELS - [0, 0, 3, 0, 0, 0]), "[2] is -1"),
        (dict(x_train=IMAGES, y_train=LABELS * 10**9), "[1] is 1000000000"),
        (dict(x_train=IMAGES, y_train=LABELS, label_names=["a", "b"]), "[2] is 2|2 label_names"),
        (dict(x_train=IMAGES, y_train=LABELS, label_names=np.array([], "U1")), "label_names"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, arrays, words):
    file = npz(tmp_path / "x.npz", **arrays)
    refused(
        lambda: opened(source="npz", path=str(file)),
        "data.path: ",
        file,
        *words.split("|"),
    )


def test_whole_numbers_in_floating_point_are_labels(tmp_path):
    file = npz(tmp_path / "x.npz", x_train=IMAGES, y_train=FLOAT[:, None].astype(np.float32))
    source = opened(source="npz", path=str(file))
    assert source.rows(np.arange(6))["label"].tolist() == FLOAT.tolist()


def packed(path, contents, **arrays):
    offsets = np.cumsum([0, *map(len, contents)])
    arrays = dict(jpeg=np.frombuffer(b"".join(contents), np.uint8), offsets=offsets) | arrays
    return npz(path / "set_train.npz", **arrays)


@pytest.mark.parametrize(
    "arrays, words",
    [
        (dict(jpeg=np.zeros(4, np.float32)), "jpeg is float32"),
        (dict(offsets=np.zeros(4)), "offsets is float64"),
        (dict(offsets=np.array([0])), "no samples"),
        (dict(offsets=np.array([0, 5, 3])), "image 1|5 to 3"),
        (dict(offsets=np.array([0, 5, 10**9])), "image 1|cut short"),
        (dict(y=np.array([0, -4, 0])), "y[1] is -4"),
        (dict(y=np.zeros(2)), "y is float64 [2]"),
    ],
)
def test_packed_images_that_do_not_fit_are_named(tmp_path, arrays, words):
    file = packed(tmp_path, [image_bytes(seed=i) for i in range(3)], **arrays)
    read = lambda: opened(source="packed_jpeg", path=str(tmp_path))
    refused(read, "data.path: ", file, *words.split("|"))


def test_a_damaged_packed_image_is_named(tmp_path):
    contents = [image_bytes(seed=i) for i in range(3)]
    file = packed(tmp_path, [contents[0], contents[1][:100], contents[2]])
    source = opened(source="packed_jpeg", path=str(file))
    refused(lambda: source.rows([2, 1]), f"{file}: image 1", "cannot be decoded")


@pytest.mark.parametrize(
    "arrays, words",
    [
        (dict(masks=np.zeros((2, 16, 16), np.float32)), "masks is float32"),
        (dict(masks=np.zeros((3, 16, 16), np.uint8)), "2 images and 3 masks"),
        (dict(label_names=np.array([], "U1")), "label_names"),
    ],
)
def test_scenes_that_do_not_fit_are_named(tmp_path, arrays, words):
    given = dict(masks=np.zeros((2, 16, 16), np.uint8), label_names=["road", "void"]) | arrays
    file = packed(tmp_path, [image_bytes(), image_bytes(seed=1)], **given)
    file = file.rename(tmp_path / "camvid_train.npz")
    refused(lambda: opened(source="camvid", path=str(tmp_path)), file, words)


@pytest.mark.parametrize(
    "arrays, words",
    [
        (dict(images=np.zeros((4, 8, 8))), "images is float64"),
        (dict(masks=np.zeros((4, 8, 4), np.uint8)), "masks is uint8 [4, 8, 4]"),
        (dict(split=np.array(["train"] * 3)), "split is <U5 [3]"),
        (dict(split=np.array(["train"] * 4)), "no slice of test; found train"),
    ],
)
def test_volumes_that_do_not_fit_are_named(tmp_path, arrays, words):
    stack = np.zeros((4, 8, 8), np.uint8)
    given = dict(images=stack, masks=stack, split=np.array(["train", "train", "test", "test"]))
    file = npz(tmp_path / "em_membrane.npz", **given | arrays)
    read = lambda: opened(source="em_volume", path=str(file), frames=2, size=4)
    refused(read, file, words)


@pytest.fixture
def records(tmp_path):
    """A folder of 20 records of two classes in two files."""
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    source = ArraySource("set", images, np.arange(20) % 2, ("ant", "bee"))
    array_record.write(source, tmp_path, shards=2)
    return tmp_path


def read_records(folder, **fields):
    return opened(source="array_record", path=str(folder), cache="none", **fields)


@pytest.mark.parametrize("left", [0, 100, 70_000, -10])
def test_a_record_file_that_is_cut_short_is_named(records, left):
    file = records / "train-00001-of-00002.array_record"
    file.write_bytes(file.read_bytes()[:left])
    refused(lambda: read_records(records), file, "damaged or cut short")


def damage_record(folder, source, i):
    """Changes bytes of the stored image of sample i, which the file's own checksum then tells."""
    content, _ = source.encoded(i)
    file = folder / f"train-0000{i // 10}-of-00002.array_record"
    stored = bytearray(file.read_bytes())
    place = stored.index(content[100:140])
    stored[place : place + 8] = bytes(8)
    file.write_bytes(stored)
    return file


def test_a_damaged_record_is_named(records):
    file = damage_record(records, read_records(records), 13)
    refused(lambda: read_records(records).rows([13]), f"{file}: record 3", "damaged")
    source = read_records(records, on_bad_record="skip")
    step = next(s for s in range(4) if 13 in Order(20, 5, seed=0)[s])
    found = next(pipeline.batches(source, seed=0, global_batch=5, start=step))
    assert 13 not in found["index"] and len(set(found["index"].tolist())) == 5
    assert len(source.bad_records) == 1


@pytest.mark.parametrize("record", [b"", b"\0\0", array_record.LABEL.pack(2) + image_bytes()])
def test_a_record_without_a_sample_is_named(tmp_path, record):
    from array_record.python.array_record_module import ArrayRecordWriter

    file = tmp_path / "train-00000-of-00001.array_record"
    (tmp_path / "info.json").write_text('{"label_names": ["ant", "bee"]}')
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for content in (array_record.LABEL.pack(1) + image_bytes(), record):
        writer.write(content)
    writer.close()
    words = "its label is 2, and there are 2 classes" if len(record) > 4 else "fewer than a label"
    refused(lambda: read_records(tmp_path).rows([0, 1]), f"{file}: record 1", words)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"label_names": 3}', '{"label_names": [1]}'])
def test_a_wrong_description_of_records_is_named(records, text):
    (records / "info.json").write_text(text)
    refused(lambda: read_records(records), records / "info.json", "label_names")


def test_converting_stops_at_a_bad_record_and_leaves_no_file(tmp_path, capsys):
    fields = folder_of(tmp_path / "in", bad=(7,))
    flags = [f"--source={fields['source']}", f"--path={fields['path']}"]
    assert array_record.main([*flags, f"--out={tmp_path / 'out'}", "--shards=1", "--size=4"]) == 2
    assert "07.png: it cannot be decoded" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.array_record"))
    (tmp_path / "file").write_text("")
    assert array_record.main(["--source=digits", f"--out={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err.startswith("error: --out=")


def test_damaged_tfds_sets_are_named(shared, tmp_path):
    stored = shared / "data" / "tfds" / "cifar10_mini"
    if not stored.exists():
        pytest.skip(f"{stored} is absent")
    shutil.copytree(stored, tmp_path / "cifar10_mini")
    read = lambda: opened(source="tfds:cifar10_mini", path=str(tmp_path))
    (file,) = (tmp_path / "cifar10_mini").glob("*/*train.array_record*")
    file.write_bytes(file.read_bytes()[:100_000])
    refused(read, file, "cut short")
    file.unlink()
    refused(read, file, "No such file")
    next(file.parent.glob("dataset_info.json")).write_text('{"na')
    refused(read, "cifar10_mini", "cannot be opened", "tfds build")
    (tmp_path / "none").mkdir()
    refused(lambda: opened(source="tfds:none", path=str(tmp_path)), "'none'", "cannot be opened")
