"""What an experiment says of its proof, and the config of each arm: the method and its controls."""

import ast
import fnmatch
import hashlib
import json
import pathlib
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxssl import evals
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.evals import protocol
from jaxssl.run import stages

METHOD = "method"  # the arm that is the experiment as it is
FIELDS = ("preset", "on", "seeds")  # of PROOF
# Of `evals`, what moves no number.
FREE = ("every_steps", "batch_size")
Changes = Mapping[str, Any]


class Experiment(NamedTuple):
    """What a file in `experiments/` says of itself.

    Attributes:
      file: with `get_config`.
      title, idea: of its docstring's first sentence, "Title: idea."
      reference: the docstring's second paragraph.
      presets: as the file names them.
      controls: name -> the changes that take out what makes the method.
      preset, metric, seeds: of the proof.
    """

    file: pathlib.Path
    title: str
    idea: str
    reference: str
    presets: tuple[str, ...]
    controls: Mapping[str, Changes]
    preset: str
    metric: str
    seeds: int

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.file.stem

    @property
    def spec(self) -> str:
        """As the command line names it."""
        return f"{self.name}:{self.preset}"

    @property
    def paper(self) -> str:
        """The identifier of the first arXiv paper of the reference, or nothing."""
        found = re.search(r"arXiv[: ]\s*(\d{4}\.\d{4,5})", self.reference)
        return found[1] if found else ""


def names(folder: pathlib.Path) -> list[str]:
    """The names of the experiments in a folder."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def read(folder: pathlib.Path, name: str, preset: str = "") -> Experiment:
    """An experiment and its proof; `preset` stands in for the proof's own.

    Raises:
      ConfigError: no such experiment or preset, or a CONTROLS or PROOF that does not fit.
    """
    file = folder / f"{name}.py"
    if not file.is_file():
        raise ConfigError(f"{name}: no such experiment{near(name, names(folder))}")
    said = runpy.run_path(str(file))
    for needed in ("CONTROLS", "PROOF"):
        if needed not in said:
            raise ConfigError(f"{file.name}: {needed} missing; expected one, as in lejepa.py")
    proof, controls = dict(said["PROOF"]), dict(said["CONTROLS"])
    if set(proof) != set(FIELDS):
        found = ", ".join(proof) or "none"
        raise ConfigError(f"{file.name}: PROOF has {found}; expected {', '.join(FIELDS)}")
    if not controls or METHOD in controls:
        found = ", ".join(controls) or "none"
        raise ConfigError(
            f"{file.name}: CONTROLS has {found}; expected one at least, none named {METHOD!r}"
        )
    presets = tuple(said.get("PRESETS", ()))
    preset = preset or proof["preset"]
    if preset not in presets:
        raise ConfigError(f"{name}: no preset {preset!r}{near(preset, presets)}")
    paragraphs = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")
    title, _, idea = " ".join(paragraphs[0].split()).partition(": ")
    reference = " ".join(" ".join(paragraphs[1:2]).split())
    proved = preset, proof["on"], int(proof["seeds"])
    return Experiment(file, title, idea.rstrip("."), reference, presets, controls, *proved)


def config(experiment: Experiment, arm: str, seed: int = 0) -> ConfigDict:
    """The config of an arm, as the command line would give it; it makes no other evaluation.

    Raises:
      ConfigError: a change that does not fit, or an evaluator that is off.
    """
    where = f"{experiment.name}: CONTROLS[{arm!r}]"
    plain = configs.load(f"{experiment.file}:{experiment.preset}")
    changes = dict(experiment.controls[arm]) if arm != METHOD else {}
    evaluator = experiment.metric.partition("/")[0]
    try:
        changed = configs.merged(plain, changes)
        others = {f"evals.{name}": None for name in evals.settings(changed.evals)}
        others.pop(f"evals.{evaluator}", None)
        quiet = {"evals.every_steps": 0, "report.samples": 0, "train.seed": seed}
        changed = configs.merged(changed, others | quiet)
        configs.validate(changed)
        plan = stages.resolve(changed, pathlib.Path("nowhere"))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if arm != METHOD else str(error)) from None
    if plan[-1].config.evals.get(evaluator) is None:
        on = sorted(evals.settings(plain.evals))
        raise ConfigError(
            f"{experiment.name}: PROOF is on {experiment.metric!r}, but evals.{evaluator} is off "
            f"in {experiment.preset!r}{near(evaluator, on)}"
        )
    return changed


def fingerprint(changed: ConfigDict, metric: str) -> str:
    """A short hash of all that moves the value of a metric, but for the seed.

    Args:
      changed: the config of an arm.
      metric: "<evaluator>/<its metric>".
    """
    evaluator = metric.partition("/")[0]
    last = stages.resolve(changed, pathlib.Path("nowhere"))[-1].config
    read = {name: last.evals.get(name) for name in evals.LOOP if name not in FREE}
    parts = {
        "config": configs.fingerprint(configs.to_dict(configs.merged(changed, {"train.seed": 0}))),
        "evals": read,
        "protocol": protocol.protocol_id(evaluator, last.evals[evaluator]),
        "metric": metric,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def better(metric: str) -> str:
    """Whether "higher" or "lower" is better, as the metric's evaluator says.

    Raises:
      ConfigError: no such evaluator, or neither is a success.

    >>> better("fewshot/5_shot")
    'higher'
    """
    evaluator, _, name = metric.partition("/")
    module = protocol.evaluator(evaluator)
    said: str | None = "lower" if hasattr(module, "measure") else "higher"
    for pattern, other in getattr(module, "BETTER", {}).items():
        if fnmatch.fnmatch(name, pattern):
            said = other
    if said is None:
        raise ConfigError(f"PROOF: neither more nor less of {metric!r} is better; expected another")
    return said


def chosen(field: str, wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of `known` that are wanted, in their order; none wanted are all.

    Raises:
      ConfigError: one that is not known.

    >>> chosen("--only", [], ["method", "no_head"])
    ['method', 'no_head']
    """
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{field}: no {name!r}{near(name, known)}")
    return [name for name in known if name in wanted or not wanted]
