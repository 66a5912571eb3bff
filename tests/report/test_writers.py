"""Files of a run: nothing lost, nothing torn, the same numbers read back."""

import json
import math

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxssl.config.errors import ConfigError
from jaxssl.report import writers


def scalars(folder):
    """(step, name, value) of each TensorBoard event: records of length, crc, event, crc."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            data = data[16 + size :]
    return found


def test_float32_comes_back_bit_equal_in_few_digits(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 300, dtype=np.uint32).view(np.float32)
    values = [*bits[np.isfinite(bits)], np.float32(0.1), np.float32(1e-45), np.float32(0)]
    with writers.MetricsWriter(tmp_path) as writer:
        for step, x in enumerate(values):
            writer.write(step, {"train/loss": x})
        writer.write(len(values), {"train/loss": jnp.float32(0.1), "perf/images": 10**12})
    rows = writers.read_metrics(tmp_path / "metrics.jsonl")
    back = np.array([row["train/loss"] for row in rows[:-1]], np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), np.array(values).view(np.uint32))
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert last == f'{{"step": {len(values)}, "train/loss": 0.1, "perf/images": 1000000000000}}'


def test_non_finite_values_are_strings_that_read_back(tmp_path):
    with writers.MetricsWriter(tmp_path) as writer:
        writer.write(3, {"a": np.float32("nan"), "b": float("inf"), "c": jnp.float32(-jnp.inf)})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 3, "a": "nan", "b": "inf", "c": "-inf"}
    row = writers.read_metrics(tmp_path / "metrics.jsonl")[0]
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf


def test_lines_are_on_file_before_close(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write(1, {"train/loss": 2.0})
    assert writers.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "train/loss": 2.0}]
    writer.close()
    writer.close()


def test_resume_drops_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with writers.MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"train/loss": step / 8})
    with path.open("a") as file:
        file.write('{"step": 3, "train/lo')
    kept = path.read_text().splitlines()[:3]
    assert [row["step"] for row in writers.read_metrics(path)] == [1, 2, 3, 4, 5]
    with writers.MetricsWriter(tmp_path, resume_step=3) as writer:
        writer.write(4, {"train/loss": 0.75})
    assert path.read_text().splitlines() == [*kept, '{"step": 4, "train/loss": 0.75}']
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    for loss in (1.0, 2.0):
        with writers.MetricsWriter(tmp_path) as writer:
            writer.write(1, {"train/loss": loss})
    assert writers.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "train/loss": 2.0}]


@pytest.mark.smoke
def test_tensorboard_has_the_finite_values(tmp_path):
    with writers.MetricsWriter(tmp_path) as writer:
        writer.write(7, {"train/loss": np.float32(0.25), "train/bad": float("nan")})
    assert scalars(tmp_path) == [(7, "train/loss", 0.25)]


def test_other_processes_leave_no_files(tmp_path):
    with writers.MetricsWriter(tmp_path / "run", enabled=False) as writer:
        writer.write(1, {"train/loss": 1.0})
        writer.flush()
    assert not (tmp_path / "run").exists()


def test_a_metric_that_is_no_scalar_is_named(tmp_path):
    with (
        writers.MetricsWriter(tmp_path) as writer,
        pytest.raises(ValueError, match=r"'train/loss': found shape \(2,\)"),
    ):
        writer.write(1, {"train/loss": np.zeros(2)})


def test_broken_metrics_file_is_one_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ConfigError, match=r"metrics\.jsonl:2: found a line") as error:
        writers.read_metrics(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="no such file"):
        writers.read_metrics(tmp_path / "absent.jsonl")


def test_json_takes_what_configs_hold(tmp_path):
    config = ml_collections.ConfigDict(
        {"dtype": jnp.bfloat16, "np": np.float32, "t": (1, 2.5), "path": tmp_path, "none": None}
    )
    config.inner = {"inf": float("inf"), "array": jnp.arange(3), "flag": np.bool_(True)}
    writers.write_json(tmp_path / "config.json", config)
    assert writers.read_json(tmp_path / "config.json") == {
        "dtype": "bfloat16",
        "np": "float32",
        "t": [1, 2.5],
        "path": str(tmp_path),
        "none": None,
        "inner": {"inf": math.inf, "array": [0, 1, 2], "flag": True},
    }


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    writers.write_json(path, {"step": 1})
    with pytest.raises(TypeError, match=r"evals\[1\]: found <object"):
        writers.write_json(path, {"evals": [1, object()]})

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(writers.os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            writers.write_json(path, {"step": 2})
    assert writers.read_json(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_summary_schema(tmp_path):
    evals = {"knn/accuracy": {"trained": np.float32(0.5), "random_init": 0.25, "raw_input": None}}
    written = writers.write_summary(
        tmp_path, status="failed", step=3, seconds=2, evals=evals, reason="nan in train/loss"
    )
    assert writers.read_json(tmp_path / "summary.json") == written
    assert written == {
        "status": "failed",
        "step": 3,
        "seconds": 2.0,
        "examples_per_second": None,
        "evals": {"knn/accuracy": {"trained": 0.5, "random_init": 0.25, "raw_input": None}},
        "reason": "nan in train/loss",
    }
    with pytest.raises(ValueError, match="found 'done', expected one of running, finished"):
        writers.write_summary(tmp_path, status="done", step=3, seconds=2)


def test_json_that_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: found text that is not JSON at line 1"):
        writers.read_json(tmp_path / "config.json")
