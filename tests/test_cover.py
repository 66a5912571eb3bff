"""Which experiments run at every change."""

import cover
import pytest

import experiments
from jaxssl.bench.small import smooth


@pytest.fixture(scope="module")
def parts_of():
    return {name: cover.parts(smooth(name)) for name in experiments.NAMES}


def test_the_cover_has_most_parts_and_a_longer_one_has_all(parts_of):
    have = lambda names: set().union(*(parts_of[name] for name in names))
    every = have(experiments.NAMES)
    assert len(have(cover.cover(parts_of, cover.SIZE))) > 0.75 * len(every)
    assert have(cover.cover(parts_of, len(parts_of))) == every


def test_a_new_part_joins_the_cover(parts_of):
    many = {f"teachers.rule={i}" for i in range(9)}
    new = parts_of | {"new": parts_of["simclr"] | many}
    assert "new" not in cover.cover(parts_of, cover.SIZE)
    assert "new" in cover.cover(new, cover.SIZE)


def test_parts_are_told_from_the_config(parts_of):
    assert {"teachers.rule=ema", "method=composed", "encoder.name=convnet"} <= parts_of["byol"]
    assert "losses.queue.memory=queue" in parts_of["moco_v2"]
    assert "streams" in parts_of["fixmatch"] and "streams" not in parts_of["byol"]
    assert "table=pseudo_labels" in parts_of["curriculum_labeling"]
    assert "losses.teacher of a frozen teacher" in parts_of["kd"]


def test_the_others_come_round_and_what_is_touched_comes_first():
    names = [f"e{i}" for i in range(40)]
    draws = [cover.further(names, [], str(commit), 4) for commit in range(100)]
    assert len({name for draw in draws for name in draw}) == 40
    assert cover.further(names, ["e7", "gone"], "a", 4)[0] == "e7"
    assert cover.further(names, names, "a", 4) == cover.further(names, names, "a", 4)
