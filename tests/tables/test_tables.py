"""Tables: their files, how they are kept or made again, and how samples find their rows."""

import dataclasses
import json
import types

import numpy as np
import pytest

from jaxssl.config.errors import ConfigError
from jaxssl.data import Part, pipeline
from jaxssl.data.images import ArraySource
from jaxssl.data.joined import with_tables
from jaxssl.method import Field, Info
from jaxssl.methods.composed import arguments
from jaxssl.tables import Table, labelled, load, making, sample_table, save, select

KINDS = {
    "label": (Field("label", (), "int32", {"classes": 3}), np.arange(6, dtype=np.int32) % 3),
    "soft": (Field("target", (2,), "float32"), np.arange(12, dtype=np.float32).reshape(6, 2)),
    "half": (Field("target", (), "float16"), np.arange(6).astype(np.float16)),
    "wave": (Field("series", (3, 1), "float32", {"rate": 8}), np.ones((6, 3, 1), np.float32)),
    "text": (Field("tokens", (4,), "int32"), np.arange(24, dtype=np.int32).reshape(6, 4)),
    "hidden": (Field("mask", (2,), "bool"), np.eye(6, 2).astype(bool)),
    "picture": (Field("image", (2, 2, 1), "uint8"), np.full((6, 2, 2, 1), 7, np.uint8)),
}


def images(count=6, seed=0):
    """A source of random images whose label is their place modulo 3."""
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 4, 4)).astype(np.uint8)
    return ArraySource("set", pixels, np.arange(count) % 3)


def scored(source, values, **columns):
    """A table of one confidence a sample."""
    values = np.asarray(values, np.float32)
    field = Field("target", (), "float32")
    more = {name: (Field("label"), np.asarray(x, np.int32)) for name, x in columns.items()}
    return sample_table(source, np.arange(len(values)), {"confidence": (field, values), **more})


def data(**fields):
    """The `data` fields that choose tables."""
    return {"part": "", "join": (), **fields}


def test_a_table_of_any_kind_is_what_was_saved(tmp_path):
    table = sample_table(images(), np.array([5, 1, 0, 2, 3, 4]), KINDS, {"right": 0.5}).checked()
    save(tmp_path / "t.npz", table)
    again = load(tmp_path / "t.npz").checked()
    assert again.fields == table.fields and again.facts == table.facts
    assert again.samples == table.samples and again.content == table.content
    for name, values in table.columns.items():
        assert again.columns[name].dtype == values.dtype
        np.testing.assert_array_equal(again.columns[name], values)
    assert [file.name for file in tmp_path.iterdir()] == ["t.npz"]
    changed = dict(table.columns) | {"half": table.columns["half"] + 1}
    assert dataclasses.replace(table, columns=changed).content != table.content
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:-100])
    with pytest.raises(ConfigError, match="damaged table"):
        load(tmp_path / "t.npz")


@pytest.mark.parametrize("name", ["half", "wave"])
def test_a_column_that_is_not_what_its_field_says_is_refused(name):
    field, values = KINDS[name]
    bad = sample_table(images(), np.arange(6), {name: (field, values.astype(np.float64))})
    with pytest.raises(ConfigError, match=f"^{name}: found float64 .*expected {field.dtype}"):
        bad.checked()


def test_every_sample_finds_its_own_row_in_any_order_and_part():
    whole = images(40)
    order = np.random.default_rng(1).permutation(40)
    field = Field("target", (), "float32")
    table = sample_table(whole, order, {"place": (field, order.astype(np.float32))})
    part = Part(whole, np.arange(7, 33))  # as `data.ranges` leaves it
    chosen = sample_table(part, np.array([3, 3, 20, 0, 3, 11]), {})
    assert chosen.index.tolist() == [10, 10, 27, 7, 10, 18]
    for source, stored in ((whole, np.arange(40)), (part, part.positions)):
        joined = with_tables(source, data(join=("t",)), {"t": table})
        assert joined.fields["t.place"] == field and "t.place" not in source.fields
        for step in range(9):  # of several epochs
            batch = pipeline.batch_at(joined, step, seed=3, global_batch=8)
            np.testing.assert_array_equal(batch["t.place"], stored[batch["index"]])
    # Some samples only, some of them twice: counted anew, and still with their own rows.
    some = with_tables(part, data(part="s", join=("t",)), {"t": table, "s": chosen})
    rows = some.rows(np.arange(6))
    assert rows["index"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows["t.place"].tolist() == chosen.index.tolist()
    np.testing.assert_array_equal(rows["image"], whole.rows(chosen.index)["image"])
    assert (
        some.num_classes == 3 and len({some.fingerprint, part.fingerprint, whole.fingerprint}) == 3
    )


def test_a_selection_has_its_own_columns_row_by_row():
    whole, field = images(), Field("target", (), "float32")
    values = np.array([1, 2, 3], np.float32)
    twice = sample_table(whole, np.array([4, 4, 0]), {"weight": (field, values)})
    source = with_tables(whole, data(part="s", join=("s",)), {"s": twice})
    assert source.rows([0, 1, 2])["s.weight"].tolist() == [1, 2, 3]


def test_tables_that_do_not_fit_are_refused():
    whole, half = images(), Part(images(), np.arange(3))
    some = sample_table(whole, np.arange(4), {})
    twice = sample_table(whole, np.array([0, 0, 1, 2, 3, 4, 5]), {})
    other = sample_table(images(seed=9, count=7), np.arange(7), {})
    classes = Table(np.arange(3, dtype=np.int32))
    tables = dict(some=some, twice=twice, other=other, classes=classes)
    for source, fields, line in (
        (whole, data(join=("sone",)), r"data\.join: found no table 'sone'; did you mean 'some'"),
        (whole, data(join="some"), r"data\.join: found 'some', expected a tuple"),
        (whole, data(part="sone"), r"data\.part: found no table 'sone'; did you mean 'some'"),
        (whole, data(join=("some",)), r"no row for 2 of 6 samples, e\.g\. .*4"),
        (whole, data(join=("twice",)), r"'twice' has a sample twice"),
        (whole, data(join=("other",)), r"'other' is of other samples than set"),
        (whole, data(part="classes"), r"'classes' is of no samples"),
        (half, data(part="some"), r"data\.part: table 'some' has .*3.* not in"),
    ):
        with pytest.raises(ConfigError, match=line) as caught:
            with_tables(source, fields, tables)
        assert "\n" not in str(caught.value)


def test_bad_records_need_no_rows():
    whole = images()
    some = sample_table(whole, np.arange(4), {"x": (Field("label"), np.arange(4, dtype=np.int32))})
    joined = with_tables(whole, data(join=("some",), on_bad_record="skip"), {"some": some})
    assert joined.rows([3])["some.x"].tolist() == [3]
    with pytest.raises(ConfigError, match="no row for 1 of 6"):
        joined.rows([3, 5])


# ------------------------------------------------------------------ kept, or made again


def parsed(entry, made=("pseudo",)):
    return making.parse(entry, "stages[1].make", ["first"], list(made))


def kept(folder, source, seed=0, capsys=None, left=None, subject=None, **entry):
    """The table, and what was said before its row count."""
    make = parsed({"name": "labelled", "per_class": 1} | entry)
    table = making.kept_or_made(folder, make, subject, source, left or {}, seed)
    return table, capsys.readouterr().out.splitlines()


def test_a_table_is_made_again_when_what_it_was_made_from_changed(tmp_path, capsys):
    source = images(30)
    first, said = kept(tmp_path, source, capsys=capsys)
    assert len(said) == 2 and said[0].endswith("labelled: made")
    assert said[1].endswith("labelled: 3 rows")
    assert first.columns["label"].tolist() == (first.index % 3).tolist()
    again, said = kept(tmp_path, source, capsys=capsys)
    assert len(said) == 1 and again.content == first.content
    other, said = kept(tmp_path, images(30, seed=1), capsys=capsys)
    assert "made again: source has changed" in said[0] and other.samples != first.samples
    kept(tmp_path, source, capsys=capsys)
    _, said = kept(tmp_path, source, capsys=capsys, seed=5)
    assert "made again: seed has changed, 0 -> 5" in said[0]
    wider, said = kept(tmp_path, source, capsys=capsys, seed=5, per_class=2)
    assert "made again: field per_class has changed, 1 -> 2" in said[0] and len(wider.index) == 6
    (tmp_path / making.FILE).write_bytes(b"")
    whole, said = kept(tmp_path, source, capsys=capsys, seed=5, per_class=2)
    assert "made again: " in said[0] and "damaged" in said[0] and whole.content == wider.content
    save(tmp_path / making.FILE, first)  # as if killed before the summary was written
    whole, said = kept(tmp_path, source, capsys=capsys, seed=5, per_class=2)
    assert "not what was written" in said[0] and whole.content == wider.content


def test_what_a_table_is_made_from_names_params_and_tables():
    config = types.SimpleNamespace(
        to_dict=lambda: {}, evals=types.SimpleNamespace(encoder="", output="pooled", size=0)
    )
    subject = types.SimpleNamespace(content="abc", program=types.SimpleNamespace(config=config))
    source = images()
    make = parsed({"name": "pseudo_labels", "of": "first", "known": "pseudo"})
    table = scored(source, np.ones(6))
    parts = making.made_from(make, subject, source, {"pseudo": table}, 0)
    assert parts["state of first"] == "abc" and parts["source"] == source.fingerprint
    assert parts["table pseudo as known"] == table.content and "seed" not in parts
    json.dumps(parts)


@pytest.mark.parametrize(
    "entry, line",
    [
        (3, r"make: found 3, expected a dict"),
        ({}, r"make\.name: found None, expected a maker of tables"),
        ({"name": "selct"}, r"make\.name: found 'selct', .*did you mean 'select'"),
        ({"name": "embed"}, r"make\.of: missing; 'embed' reads the encoder"),
        ({"name": "embed", "of": "frist"}, r"make\.of: no earlier stage 'frist'.*mean 'first'"),
        ({"name": "embed", "of": "first", "stream": 3}, r"make\.stream: found 3"),
        ({"name": "embed", "of": "first", "output": "x"}, r"make\.output: no such .*'outputs'"),
        ({"name": "embed", "of": "first", "outputs": "x"}, r"make\.outputs: found 'x'.*tuple"),
        ({"name": "select"}, r"make\.table: missing; 'select' needs it"),
        ({"name": "select", "table": "psuedo"}, r"make\.table: no earlier table.*mean 'pseudo'"),
        ({"name": "select", "table": "pseudo", "of": "first"}, r"make\.of: found 'first', but"),
        ({"name": "labelled", "per_class": 1, "seed": 2}, r"make\.seed: no such field"),
        ({"name": "labelled", "per_class": 1.5}, r"make\.per_class: found 1\.5, expected a whole"),
        ({"name": "labelled", "per_class": 1, "encoder": "x"}, r"make\.encoder: .*without `of`"),
    ],
)
def test_a_faulty_maker_is_refused_in_one_line(entry, line):
    with pytest.raises(ConfigError, match=r"^stages\[1\]\." + line) as caught:
        parsed(entry)
    assert "\n" not in str(caught.value)


def test_a_maker_may_be_anybodys(monkeypatch, tmp_path):
    (tmp_path / "my_maker.py").write_text(
        "from jaxssl.tables import sample_table\n"
        "import numpy as np\n"
        "def make(subject, source, *, first: int = 0):\n"
        "    return sample_table(source, np.arange(first, len(source)), {})\n"
        "example = make\n"
    )
    (tmp_path / "half.maker").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "my_maker.py").rename(tmp_path / "mine" / "makers.py")
    make = parsed({"name": "mine.makers", "first": 4})
    assert making.run(make, None, images(), {}, 0).index.tolist() == [4, 5]


# ------------------------------------------------------------------ selections


def chosen(source, table, example=False, **fields):
    make = parsed({"name": "select", "table": "pseudo", **fields}, made=("pseudo", "few"))
    few = sample_table(source, np.array([0, 1]), {})
    return making.run(make, None, source, {"pseudo": table, "few": few}, 0, example=example)


def test_the_curriculum_takes_the_best_of_the_unknown_and_all_that_is_known():
    source = images(7)
    table = scored(source, [0.0, 0.1, 0.5, 0.6, 0.7, 0.8, 0.9])
    for top, expected in ((20, [6]), (40, [5, 6]), (60, [4, 5, 6]), (100, [2, 3, 4, 5, 6])):
        found = chosen(source, table, top=float(top), known="few")
        assert found.index.tolist() == [0, 1, *expected]
        assert found.facts["selected"] == len(expected)
    ties = scored(source, np.full(7, 0.5))
    assert len(chosen(source, ties, top=1.0).index) == 7


def test_selections_by_threshold_class_and_pace():
    source = images(6)
    table = scored(source, [0.1, 0.9, 0.4, 0.8, 0.3, 0.7], label=[0, 0, 0, 0, 1, 1])
    assert chosen(source, table, threshold=0.7).index.tolist() == [1, 3, 5]
    assert chosen(source, table, per_class=1).index.tolist() == [1, 5]
    assert chosen(source, table, per_class=3).index.tolist() == [1, 2, 3, 4, 5]
    paced = chosen(source, table, pace=0.5)
    assert paced.index.tolist() == [0, 2, 4]
    np.testing.assert_allclose(paced.columns["weight"], [0.8, 0.2, 0.4], rtol=1e-6)
    even = chosen(source, table, threshold=0.35, balance=True)
    assert even.index.tolist() == [1, 2, 3, 5, 5, 5]


@pytest.mark.parametrize(
    "fields, line",
    [
        ({}, "threshold: found none, expected one of threshold, top"),
        ({"top": 5.0, "pace": 1.0}, "threshold: found top and pace"),
        ({"top": 101.0}, "top: found 101.0, expected a number above 0, at most 100"),
        ({"per_class": 0}, "per_class: found 0"),
        ({"top": 5.0, "score": "confidense"}, "score: no column .*did you mean 'confidence'"),
        ({"per_class": 1, "label": "lable"}, "label: no column 'lable'"),
    ],
)
def test_a_faulty_selection_is_refused_before_there_is_a_table(fields, line):
    source = images()
    table = scored(source, np.ones(6), label=np.zeros(6))
    with pytest.raises(ConfigError, match=rf"^stages\[1\]\.make\.{line}"):
        chosen(source, table, example=True, **fields)


def test_labelled_subsets_are_even_and_a_function_of_the_seed():
    source = images(30)
    one, two = (labelled.make(None, source, per_class=4, seed=seed) for seed in (0, 1))
    assert np.bincount(one.columns["label"]).tolist() == [4, 4, 4]
    assert one.content == labelled.make(None, source, per_class=4, seed=0).content != two.content
    part = Part(source, np.arange(10, 30))  # the rows are those of the whole
    found = labelled.make(None, part, per_class=2, seed=0)
    assert found.index.min() >= 10
    assert found.columns["label"].tolist() == (found.index % 3).tolist()
    assert select.WAYS and len(labelled.example(None, source, per_class=4, seed=0).index) == 12


def test_terms_read_tables_as_constants():
    field = Field("target", (2,), "float32")
    means = Table(
        np.arange(3, dtype=np.int32), {"mean": np.ones((3, 2), np.float32)}, {"mean": field}
    )
    info = Info(
        {},
        6,
        3,
        1,
        1,
        2,
        tables={"means": means, "two": dataclasses.replace(means, columns=dict(a=0, b=0))},
    )
    read = lambda name: arguments.parse({"table": name}, "losses.x.p", info, None, None, None)
    for name in ("means", "means.mean"):
        value = arguments.resolve(read(name), None, "x", "p")
        np.testing.assert_array_equal(value, means.columns["mean"])
    for name, line in (("meens", "did you mean 'means'"), ("two", "no column 'two'")):
        with pytest.raises(ConfigError, match=rf"^losses\.x\.p\.table: .*{line}"):
            read(name)
