"""The whole command, on CPU devices and for TPUs that are not here."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import pytest
import tiny

import experiments
from jaxssl.config.errors import ConfigError
from jaxssl.data import load
from jaxssl.plan import facts, largest
from jaxssl.plan.__main__ import main
from jaxssl.plan.program import Planned
from jaxssl.program import Program
from jaxssl.report.writers import read_json
from jaxssl.step import make_step


def plan(folder, topology, *flags):
    """(exit code, what --json wrote or None)."""
    spec, out = tiny.write(folder), folder / f"{topology.replace(':', '-')}.json"
    out.unlink(missing_ok=True)
    code = main([f"--config={spec}", f"--topology={topology}", f"--json={out}", *flags])
    return code, read_json(out) if out.exists() else None


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    return plan(tmp_path_factory.mktemp("eight"), "cpu:8", "--config.mesh.fsdp=4")


def test_a_plan_for_cpus_holds_every_number(eight):
    code, found = eight
    assert code == 0
    assert found["topology"]["devices"] == 8
    assert found["mesh"] == {"data": 2, "fsdp": 4, "model": 1}
    memory = found["memory"]
    parts = ("arguments", "outputs", "temporaries", "code")
    assert memory["peak"] == sum(memory[name] for name in parts) > 0
    assert memory["params"] + memory["optimizer"] + memory["batch"] <= memory["arguments"]
    flops = found["flops"]
    assert flops["model"] > 0 and flops["recomputed"] == 0 and flops["uncounted"] == {}
    assert flops["model_per_device"] * 8 == flops["model"]
    sent = found["collectives"]
    assert sent["bytes"] == pytest.approx(sum(x["bytes"] for x in sent["by_kind"].values()))
    assert sent["bytes"] > 0 and sent["largest"] and sent["fsdp_minimum"] > 0
    assert sent["over_fsdp_minimum"] == sent["bytes"] / sent["fsdp_minimum"]
    # There are no public figures of a CPU, and so no bound.
    assert found["bound"] is None and found["run"] is None


def test_bytes_on_a_device_follow_from_the_shapes(eight, tmp_path):
    config = tiny.load(tmp_path, **{"mesh.fsdp": 4})
    program = Program(config)
    total = 0
    for leaf, split in zip(
        jax.tree.leaves(program.shapes.params), jax.tree.leaves(program.shardings.params)
    ):
        parts = math.prod(4 for axis in split.spec if axis == "fsdp")
        total += math.prod(leaf.shape) * leaf.dtype.itemsize / parts
    assert eight[1]["memory"]["params"] == total
    whole = sum(math.prod(x.shape) * 4 for x in jax.tree.leaves(program.shapes.params))
    assert total < whole


@pytest.mark.parametrize("name", ["dinov2", "ijepa"])
def test_masks_that_were_made_here_fit_devices_that_are_not(name):
    config = experiments.small(name)
    planned = Planned(config, jax.devices(), load(config.data, "train"))
    with jax.set_mesh(planned.mesh):
        step = make_step(planned.method, planned.optimizers)
        state, _ = jax.eval_shape(step, planned.abstract_state(), planned.abstract_batch())
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, planned.shapes)


def test_flops_do_not_depend_on_the_devices(eight, tmp_path):
    code, one = plan(tmp_path, "cpu:1")
    assert code == 0
    assert one["flops"]["model"] == eight[1]["flops"]["model"]
    assert one["collectives"]["bytes"] == 0


def test_the_screen_has_the_sections(tmp_path, capsys):
    assert plan(tmp_path, "cpu:1")[0] == 0
    out = capsys.readouterr().out
    for section in ("bytes per device", "FLOPs per step", "sent per device", "roofline"):
        assert section in out


def test_too_little_memory_is_one_line_and_code_1(tmp_path, capsys):
    code, found = plan(tmp_path, "cpu:1", "--memory=0.0001")
    err = capsys.readouterr().err
    assert code == 1 and found is None
    (line,) = [text for text in err.splitlines() if text.startswith("error: ")]
    assert "out of memory" in line and "train.microbatches" in line
    assert "Traceback" not in err


def test_the_largest_batch_is_found_where_the_own_one_does_not_fit(eight, tmp_path, monkeypatch):
    """A limit a little below the peak of 32; on 8 devices every batch is a multiple of 8."""
    monkeypatch.setattr(largest, "CLOSE", 1)  # a coarse search: each size is compiled
    limit = f"--memory={0.97 * eight[1]['memory']['peak'] / 2**30}"
    code, found = plan(tmp_path, "cpu:8", limit, "--largest-batch", "--config.mesh.fsdp=4")
    assert code == 1 and found["largest_batch"] in (8, 16, 24)


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--topology=cpu:2"], "--config: missing"),
        (["--config=SPEC"], "--topology: missing"),
        (["--config=SPEC", "--topology=v5e-16x16"], "did you mean 'v5e:16x16'?"),
        (["--config=SPEC", "--topology=cpu:2", "--toplogy=x"], "--topology"),
        (["--config=SPEC", "--topology=cpu:2", "--stage=second"], "no stage that trains"),
        (["--config=SPEC", "--topology=cpu:2", "--samples=-1"], "--samples: found -1"),
        (["--config=SPEC", "--topology=cpu:3"], "32 does not divide over 3 devices"),
        (["--config=SPEC", "--topology=cpu:1", "--largest-batch"], "--memory"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, capsys, flags, said):
    spec = str(tiny.write(tmp_path))
    assert main([flag.replace("SPEC", spec) for flag in flags]) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0]


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'jaxssl[plan]'",
)
def test_a_plan_for_tpus(tmp_path, eight, capfd):
    code, found = plan(tmp_path, "v5e:2x2", "--config.mesh.fsdp=4")
    err = capfd.readouterr().err
    assert code == 0
    assert found["topology"]["chip"]["kind"] == "v5e" and found["topology"]["hosts"] == 1
    assert found["flops"]["model"] == eight[1]["flops"]["model"]
    assert found["memory"]["params"] == eight[1]["memory"]["params"]  # four parts in both
    bound = found["bound"]
    assert bound["seconds"] == max(bound["compute"], bound["memory"], bound["links"]) > 0
    assert bound["seconds"] == bound[bound["limit"]] and 0 < bound["mfu"] < 1
    run = found["run"]
    assert run["hours"] == pytest.approx(run["steps"] * bound["seconds"] / 3600)
    assert run["chip_hours"] == pytest.approx(4 * run["hours"])
    assert run["samples_per_second_per_host"] == pytest.approx(32 / bound["seconds"])
    # The compiler for TPUs talks to standard error unless it is told not to.
    assert all(line.startswith("[1/1] compiling") for line in err.splitlines())


def data(folder, **fields):
    config = tiny.load(folder).data
    with config.unlocked():
        config.update(fields)
    return config


def test_known_data_sets_need_not_be_here(tmp_path):
    fields = dict(source="tfds:imagenet2012", path=str(tmp_path), size=64)
    found = facts.source(data(tmp_path, mean=(0.5, 0.5, 0.5), **fields))
    assert len(found) == 1_281_167 and found.num_classes == 1000
    assert found.fields["image"].shape == (64, 64, 3)
    assert len(facts.source(data(tmp_path, **fields), samples=7)) == 7


def test_what_is_here_is_opened(tmp_path):
    assert facts.source(data(tmp_path)).fingerprint


def test_an_unknown_data_set_names_the_flags(tmp_path):
    nowhere = dict(source="image_folder", path=str(tmp_path / "mine"), size=64)
    with pytest.raises(ConfigError, match="--samples and --classes"):
        facts.source(data(tmp_path, **nowhere))
    found = facts.source(data(tmp_path, **nowhere), samples=100, classes=3)
    assert (len(found), found.num_classes) == (100, 3) and "label" in found.fields
    assert "label" not in facts.source(data(tmp_path, **nowhere), samples=100).fields


def test_the_size_of_absent_images_must_be_told(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.size"):
        facts.source(data(tmp_path, source="tfds:imagenet2012", size=0))
    # A part of the split has another size than the table says.
    part = dict(source="tfds:cifar10", path=str(tmp_path), size=32, train_split="train[:10%]")
    with pytest.raises(ConfigError, match="--samples"):
        facts.source(data(tmp_path, **part))
