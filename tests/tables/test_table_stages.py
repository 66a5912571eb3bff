"""Stages that make tables, and stages that read them: one run, killed and restarted at will."""

import functools
import pathlib

import jax
import numpy as np
import pytest
import tiny

from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.program import Program
from jaxssl.report.writers import read_json
from jaxssl.run import runs, stages, table_stages, train
from jaxssl.tables import load, making, pseudo_labels

# A teacher of few labels; its pseudo-labels, and its logits as they are, teach a student.
FILE = tiny.FILE.replace(
    "    return config",
    """
    config.views = {"global": dict(count=1, size=8, noise=dict(sigma=0.1))}
    del config.losses.prediction, config.losses.sigreg, config.student.projector
    config.student.classifier = dict(
        name="classifier", width="num_classes", reads="pooled", output="logits"
    )
    config.losses.classes = dict(
        fn="label_smoothing_cross_entropy", student="logits", pairs="single",
        labels=dict(batch="label"),
    )
    cached = dict(fn="kl_divergence", student="logits", teacher=dict(batch="cached.logits"),
                  pairs="single")
    config.train.steps = 2
    config.evals.knn = None
    config.evals.bank = 0
    config.stages = (
        dict(name="few", make=dict(name="labelled", per_class=4)),
        dict(name="first", changes={"data.part": "few"}),
        dict(name="pseudo", make=dict(name="pseudo_labels", of="first", known="few")),
        dict(name="cached", make=dict(name="embed", of="first", outputs=("logits",))),
        dict(name="sure", make=dict(name="select", table="pseudo", top=20.0, known="few")),
        dict(name="second", changes={
            "data.part": "sure", "data.join": ("pseudo", "cached"),
            "losses.classes.labels": dict(batch="pseudo.label"), "losses.cached": cached}),
    )
    return config""",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "labelling.py"
    path.write_text(FILE)
    return configs.load(str(path))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    work = tmp_path_factory.mktemp("whole")
    train.run(config, work)
    return work


class Killed(Exception):
    """Stands for a kill."""


def killing(function, calls=1):
    """The function, killed when it has done its work for the time `calls`."""
    seen = []

    @functools.wraps(function)
    def killed(*args, **fields):
        result = function(*args, **fields)
        seen.append(result)
        if len(seen) == calls:
            raise Killed
        return result

    return killed


def test_tables_are_made_of_what_the_teacher_says(whole):
    index = read_json(whole / "stages.json")
    rows = {row["name"]: row for row in index}
    assert all(row["status"] == "finished" for row in index)
    tables = {
        name: load(whole / rows[name]["folder"] / making.FILE)
        for name in ("few", "pseudo", "cached", "sure")
    }
    for name, table in tables.items():
        assert rows[name]["artifact"] == table.content and rows[name]["rows"] == len(table.index)
    few, pseudo, cached, sure = tables.values()
    assert len(few.index) == 40 and len(pseudo.index) == len(cached.index) == 1297
    first = runs.load(whole, stage="first")
    assert first.program.info.num_samples == 40 and len(first.program.source) == 1297
    # What the teacher says of the plain image of each sample, by the sample's place.
    some = np.arange(0, 1297, 100)
    encode = first.program.method.readouts["student"]
    rows_of = {k: jax.numpy.asarray(x) for k, x in first.program.source.rows(some).items()}
    logits = np.asarray(encode(first.program.context(first.state, rows_of))["logits"])
    assert cached.index.tolist() == list(range(1297))
    np.testing.assert_allclose(cached.columns["logits"][some], logits, atol=1e-4)
    unknown = ~np.isin(some, few.index)
    np.testing.assert_array_equal(pseudo.columns["label"][some][unknown], logits.argmax(1)[unknown])
    truth = first.program.source.rows(np.arange(1297))["label"]
    np.testing.assert_array_equal(pseudo.columns["label"][few.index], truth[few.index])
    assert (pseudo.columns["confidence"][few.index] == 1).all()
    other = ~np.isin(np.arange(1297), few.index)
    right = (pseudo.columns["label"] == truth)[other].mean()
    assert pseudo.facts == {"known": 40, "right": pytest.approx(right)}
    # The surest fifth of the others, and all that is known.
    p = pseudo.columns["confidence"]
    assert set(few.index) <= set(sure.index)
    taken = np.isin(np.arange(1297), sure.index)
    assert taken.sum() == 40 + np.ceil(0.2 * 1257) and p[taken].min() >= p[other & ~taken].max()
    second = runs.load(whole, stage="second")
    assert second.program.info.num_samples == len(sure.index)
    batch = second.program.streams[""].source.rows(np.arange(200))
    np.testing.assert_array_equal(
        batch["cached.logits"], cached.columns["logits"][sure.index[:200]]
    )
    # Evaluations read the whole split with its own labels, and no column of a table.
    assert set(second.program.source.fields) == {"index", "image", "label"}
    metrics = tiny.rows(whole / "5-second")[2]
    assert {"train/classes", "train/cached"} <= metrics.keys()


def test_killed_in_the_middle_of_tables_is_never_killed(config, whole, tmp_path, monkeypatch):
    for module, name, calls in (
        (pseudo_labels, "make", 1),  # made, and nothing written
        (making, "save", 2),  # "cached": written, and not yet signed
        (making, "write_summary", 2),  # "sure": signed, the next stage not begun
    ):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, killing(getattr(module, name), calls))
            train.run(config, tmp_path)
    train.run(config, tmp_path)
    assert read_json(tmp_path / "stages.json") == read_json(whole / "stages.json")
    for stage in ("1-first", "5-second"):
        assert tiny.rows(tmp_path / stage) == tiny.rows(whole / stage)
    assert not list(tmp_path.rglob("*.part"))


def test_a_table_that_is_another_is_made_again_and_its_readers_are_refused(config, whole, capsys):
    capsys.readouterr()
    entries = [dict(entry) for entry in config.stages]
    entries[4] = {**entries[4], "make": {**entries[4]["make"], "top": 40.0}}
    with pytest.raises(ConfigError, match=r"5-second: begun with another table 'sure'") as caught:
        train.run(configs.merged(config, {"stages": tuple(entries)}), whole)
    assert "\n" not in str(caught.value)
    said = [line for line in capsys.readouterr().out.splitlines() if "made" in line]
    assert (
        len(said) == 1
        and "table select: made again: field top has changed, 20.0 -> 40.0" in said[0]
    )
    train.run(config, whole)  # back to what it was
    assert read_json(whole / "stages.json")[4]["rows"] == 40 + 252


@pytest.mark.parametrize(
    "place, fields, line",
    [
        (2, {"output": "logit"}, r"make\.output: .*did you mean 'logits'"),
        (2, {"by": "heads"}, r"make\.by: found 'heads'"),
        (2, {"by": "means"}, r"make\.means: missing"),
        (2, {"stream": "unlabelled"}, r"make\.stream: no stream 'unlabelled'"),
        (2, {"encoder": "teacher"}, r"make\.encoder: no 'teacher'"),
        (3, {"outputs": ("logits", "poled")}, r"make\.outputs: .*did you mean 'pooled'"),
        (4, {"score": "sure"}, r"make\.score: no column 'sure'"),
        (
            3,
            {"name": "clusters", "count": 5000},
            r"make\.count: found 5000, expected 1 to the 1297",
        ),
        (3, {"name": "projections", "width": 99}, r"make\.width: found 99"),
        (3, {"name": "class_means", "labels": "pseudo", "column": "p"}, "labels: no column 'p'"),
        (3, {"name": "scores", "output": "tokens"}, r"make\.output: "),
    ],
)
def test_a_faulty_table_is_refused_before_anything_trains(config, tmp_path, place, fields, line):
    entries = [dict(entry) for entry in config.stages]
    make = dict(entries[place]["make"])
    if "name" in fields:
        make = {"of": "first"}
    entries[place]["make"] = {**make, **fields}
    with pytest.raises(ConfigError, match=rf"^stages\[{place}\]\..*{line}") as caught:
        train.run(configs.merged(config, {"stages": tuple(entries)}), tmp_path / "work")
    assert "\n" not in str(caught.value) and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "fields, line",
    [
        ({"data.join": ("psuedo",)}, r"data\.join: found no table 'psuedo'; did you mean 'pseudo'"),
        ({"data.part": "first"}, r"data\.part: found no table 'first'"),
        ({"losses.classes.labels": dict(batch="pseudo.lable")}, r"did you mean 'pseudo.label'"),
        ({"losses.classes.labels": dict(table="pseudo.lable")}, r"no column 'pseudo.lable'"),
    ],
)
def test_a_faulty_reader_is_refused_before_anything_trains(config, tmp_path, fields, line):
    *earlier, last = (dict(entry) for entry in config.stages)
    last["changes"] = {**last["changes"], **fields}
    with pytest.raises(ConfigError, match=line):
        train.run(configs.merged(config, {"stages": (*earlier, last)}), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_one_device_and_eight_make_the_same_tables(config):
    first = stages.resolve(config, pathlib.Path("nowhere"))[1]
    found = {}
    for count in (1, 8):
        own = configs.merged(first.config, {"data.part": "", "mesh.fsdp": min(count, 4)})
        program = Program(own, devices=jax.devices()[:count])
        state, tables = program.init(), {}
        for entry in (
            {"name": "embed", "outputs": ("pooled", "logits")},
            {"name": "pseudo_labels"},
            {"name": "class_means"},
            {"name": "clusters", "count": 7},
            {"name": "projections", "width": 3},
            {"name": "scores"},
        ):
            make = making.parse({"of": "first", **entry}, "make", ["first"], [])
            subject = making.subject_of(make, program, state)
            table = making.run(make, subject, program.source, {}, 0)
            example = making.run(make, subject, program.source, {}, 0, example=True)
            assert table.fields == example.fields and table.samples == example.samples
            np.testing.assert_array_equal(table.index, example.index)
            tables[entry["name"]] = table
        found[count] = tables
    for name, one in found[1].items():
        for column, values in one.columns.items():
            other = found[8][name].columns[column]
            if values.dtype.kind == "f":
                np.testing.assert_allclose(other, values, atol=1e-4, err_msg=f"{name}/{column}")
            else:
                np.testing.assert_array_equal(other, values, err_msg=f"{name}/{column}")


def test_a_maker_reads_the_samples_of_a_stream(config, tmp_path):
    few = [dict(name="few", make=dict(name="labelled", per_class=4, stream="low")), dict(name="x")]
    changed = configs.merged(config, {"stages": tuple(few)})
    with changed.unlocked():
        changed.streams.low = dict(ranges=((0, 400),))
        changed.streams.high = dict(ranges=((400, 1297),))
    plan = stages.resolve(changed, tmp_path)
    made = table_stages.table(plan[0], plan, {}, {})
    assert len(made.index) == 40 and made.index.max() < 400
