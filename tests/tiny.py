"""A run that takes a second, as a config file, and ways to start it in processes of its own."""

import os
import pathlib
import subprocess
import sys

import jax
from ml_collections import ConfigDict

from jaxssl.config import load as configs
from jaxssl.report.writers import read_json, read_metrics

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = """
from jaxssl.config import recipes

PRESETS = ("digits", "cifar10")


def get_config(preset="digits"):
    config = recipes.base(preset)
    config.method = "composed"
    config.encoder = dict(name="convnet", widths=(8,), strides=(2,), norm="batch")
    config.views = {"global": dict(count=2, size=8, noise=dict(sigma=0.1))}
    config.student.projector = dict(name="mlp", widths=(16, 8), norm="batch")
    config.losses.prediction = dict(
        fn="lejepa_prediction", student="projection", pairs="all", weight=0.98
    )
    config.losses.sigreg = dict(
        fn="sigreg", student="projection", pairs="single", num_slices=8, weight=0.02
    )
    config.data.size = 8
    config.train.update(steps=20, global_batch=32)
    config.optimizer.learning_rate = 1e-2
    config.evals.update(every_steps=0, bank=64, test=64, batch_size=64, calibration_batches=1)
    config.evals.linear = config.evals.fewshot = None
    config.checkpoint.every_steps = 5
    config.mesh.min_shard_elements = 1
    config.report.update(every_steps=1, samples=0)
    return config
"""


def write(folder: pathlib.Path) -> pathlib.Path:
    """The config file in `folder`."""
    path = folder / "tiny.py"
    path.write_text(FILE)
    return path


def load(folder: pathlib.Path, **changes: object) -> ConfigDict:
    """The config, with {"a.b": value} changes."""
    return configs.merged(configs.load(str(write(folder))), changes)


def start(
    folder: pathlib.Path, workdir: str, *overrides: str, **environment: str
) -> subprocess.Popen[str]:
    """`python -m jaxssl.main` on the config in `folder`, in a process of its own."""
    spec = write(folder)
    devices = {"JAX_NUM_CPU_DEVICES": "2"}
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jaxssl.main", f"--config={spec}", f"--workdir={folder / workdir}"]
        + [f"--config.{text}" for text in overrides],
        env=os.environ | devices | cache | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str], code: int = 0, seconds: float = 600) -> tuple[str, str]:
    """(stdout, stderr) once the process has ended, as it should, with `code`."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, f"{process.returncode}\n{out[-2000:]}\n{err[-4000:]}"
    return out, err


def rows(workdir: pathlib.Path) -> dict[int, dict[str, float]]:
    """step -> metrics, without those that measure time."""
    found: dict[int, dict[str, float]] = {}
    for row in read_metrics(workdir / "metrics.jsonl"):
        kept = {name: x for name, x in row.items() if not name.startswith("perf/")}
        found.setdefault(row["step"], {}).update(kept)
    return found


def summary(workdir: pathlib.Path) -> dict:
    """What `summary.json` holds."""
    return read_json(workdir / "summary.json")


def without_gloo(output: str) -> list[str]:
    """The lines of a process, less those of Gloo, whose threads write into each other's."""
    lines = output.splitlines()
    return [line for line in lines if line and "[Gloo]" not in line and "peer ranks" not in line]
