"""Bad records that are skipped: the same batches however they are read; and the end of a run."""

import concurrent.futures
import pickle

import numpy as np
import pytest
import tiny
from data.damaged import folder_of, opened, refused

from jaxssl import main
from jaxssl.data import Part, pipeline
from jaxssl.data.bad import BadRecords
from jaxssl.data.order import Order
from jaxssl.program import Program

B = 8
BAD = (0, 3, 4, 11, 17)


@pytest.fixture(scope="module")
def skipping(tmp_path_factory):
    """The fields of 44 images, five of them bad, and of the same images without damage."""
    root = tmp_path_factory.mktemp("skipping")
    bad = folder_of(root / "bad", BAD, count=44)
    return dict(bad, on_bad_record="skip"), folder_of(root / "good", count=44)


def steps(source, start, count, **how):
    stream = pipeline.batches(source, **{"seed": 1, "global_batch": B, "start": start, **how})
    return [next(stream) for _ in range(count)]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_skipped_samples_are_replaced_within_their_batch(skipping):
    source, whole = opened(**skipping[0]), opened(**skipping[1])
    found, plan = steps(source, 0, 40), pipeline.plan(44, seed=1, global_batch=B)
    replaced = 0
    for step, batch in enumerate(found):
        ids = batch["index"].tolist()
        assert len(set(ids)) == B and not set(ids) & set(BAD)
        kept = ~np.isin(plan[step], BAD)
        np.testing.assert_array_equal(batch["index"][kept], plan[step][kept])
        replaced += int((~kept).sum())
        assert_same([batch], [whole.rows(batch["index"])])  # image and label of the index
    assert replaced > 20
    names = [line.split(":")[1].rpartition("/")[2] for line in source.bad_records]
    assert names == [f"{i:02d}.png" for i in BAD]


@pytest.mark.parametrize("how", [dict(threads=0), dict(threads=4), dict(cache="memory")])
def test_skipping_depends_on_no_start_no_threads_and_no_cache(skipping, how):
    cache = how.pop("cache", "none")
    whole = steps(opened(**skipping[0]), 0, 14)
    assert_same(whole[5:], steps(opened(**skipping[0] | dict(cache=cache)), 5, 9, **how))


def test_skipping_depends_on_no_processes(skipping):
    whole = steps(opened(**skipping[0]), 0, 12)
    parts = [
        steps(opened(**skipping[0]), 0, 12, process_index=p, process_count=4) for p in range(4)
    ]
    joined = [{k: np.concatenate([b[k] for b in step]) for k in step[0]} for step in zip(*parts)]
    assert_same(whole, joined)


def test_without_bad_records_skipping_changes_nothing(skipping):
    kept = opened(**skipping[1] | dict(on_bad_record="skip"))
    assert kept.fingerprint == opened(**skipping[1]).fingerprint and kept.bad_records == []
    assert_same(steps(opened(**skipping[1]), 3, 5), steps(kept, 3, 5))


def test_stand_ins_are_the_column_of_a_place():
    order = Order(44, B, seed=1)
    epoch = np.concatenate([order[step] for step in range(5)])
    for place in (0, 7):
        found = [order.stand_in(2, place, turn) for turn in range(7)]
        rows = [2, 3, 4, *([5] if place < 4 else []), 0, 1]  # the rest of the epoch has 4 samples
        known = [i for i, row in zip(found, rows) if row < 5]
        assert known == [epoch[B * row + place] for row in rows if row < 5]
        assert found[len(rows) :] == [None] * (7 - len(rows))
    columns = [{order.stand_in(9, p, turn) for turn in range(5)} for p in range(B)]
    assert sum(len(c) for c in columns) == len(set.union(*columns))


def test_where_nothing_can_stand_in_the_record_is_named(tmp_path):
    source = opened(**folder_of(tmp_path, bad=(5,)), on_bad_record="skip")
    words = ("05.png", "data.on_bad_record=skip finds no sample", "train.global_batch smaller")
    refused(lambda: steps(source, 0, 1, global_batch=20), *words)


def test_a_set_without_one_good_record_is_refused(tmp_path):
    fields = folder_of(tmp_path, bad=range(20))
    refused(lambda: opened(**fields, on_bad_record="skip"), "of 20", "00.png")
    refused(lambda: opened(**fields), "00.png: it cannot be decoded", kind=BadRecords)


def test_a_part_skips_as_its_whole_does(skipping):
    whole, part = opened(**skipping[0]), opened(**skipping[0], ranges=((0, 12), (30, 42)))
    assert isinstance(part, Part) and part.fingerprint
    found = steps(part, 0, 6)
    places = np.concatenate([part.stored(batch["index"]) for batch in found])
    assert not set(places.tolist()) & set(BAD)
    assert_same(
        [found[2]], [{**whole.rows(part.stored(found[2]["index"])), "index": found[2]["index"]}]
    )
    assert [line for line in part.bad_records if "17.png" in line] == []
    assert len(part.bad_records) == 4


def test_evaluation_takes_skipped_samples_for_padding(skipping):
    source = opened("test", **skipping[0])
    found = list(pipeline.eval_batches(source, 16))
    ids = np.concatenate([batch["index"][batch["valid"]] for batch in found])
    assert ids.tolist() == [i for i in range(44) if i not in BAD]
    assert [len(batch["image"]) for batch in found] == [16, 16, 16]
    with pytest.raises(BadRecords, match=r"00\.png"):
        opened("test", **skipping[0] | dict(on_bad_record="error"))


def test_bad_records_are_noted_once_from_many_threads(skipping):
    source = opened(**skipping[0])

    def read(i):
        try:
            source.rows([i])
        except BadRecords:
            return i
        return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, [*range(20)] * 5))
    assert sorted(i for i in found if i is not None) == sorted(BAD * 5)
    assert len(source.bad_records) == len(BAD)
    assert pickle.loads(pickle.dumps(source)).bad_records == source.bad_records


def test_a_run_ends_in_the_one_line(tmp_path, capsys):
    fields = folder_of(tmp_path / "images", bad=(13,), count=40)
    flags = [f"--config={tiny.write(tmp_path)}", f"--workdir={tmp_path / 'work'}"]
    flags += [f"--config.data.{name}={value}" for name, value in fields.items()]
    assert main.main([*flags, "--config.train.global_batch=8"]) == 2
    shown = capsys.readouterr().err.splitlines()
    (line,) = [text for text in shown if text.startswith("error: ")]
    assert f"{tmp_path}/images/train/ant/13.png" in line
    assert not any("Traceback" in text or "Exception in thread" in text for text in shown)
    flags[1] = f"--workdir={tmp_path / 'other'}"
    assert main.main([*flags, "--config.train.global_batch=64"]) == 2
    assert "64 is more than the 40 samples" in capsys.readouterr().err


def test_a_program_skips_bad_records(tmp_path):
    fields = folder_of(tmp_path / "images", bad=(3, 13), count=40)
    config = tiny.load(tmp_path, **{"train.global_batch": 8})
    with config.unlocked():
        config.data.update(fields, on_bad_record="skip")
    program = Program(config)
    batches = program.batches(0)
    ids = np.concatenate([next(batches)["index"] for _ in range(5)])
    assert not {3, 13} & set(ids.tolist())
    for name, line in zip(("03.png", "13.png"), program.source.bad_records, strict=True):
        assert f"{name}: it cannot be decoded" in line
