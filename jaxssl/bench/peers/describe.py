"""What a peer must train, as JSON: the config with every default filled in, schedules fixed.

The peer has neither jaxssl nor our defaults, so that nothing is left to be looked up there.
"""

import dataclasses
import inspect
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np

from jaxssl import encoders, heads, optim
from jaxssl.config import finder, schedules
from jaxssl.encoders import vit
from jaxssl.method import Info
from jaxssl.methods.composed.networks import head_place
from jaxssl.modalities.image.transforms import TRANSFORMS
from jaxssl.modalities.parameters import parse

DEVICES = {"gpu": "cuda"}  # where the names of JAX and of PyTorch differ
TERM = ("fn", "student", "teacher", "pairs", "weight", "num_slices")
ARGUMENTS = ("center", "mask")  # of a term, from elsewhere than the config
VIT = ("width", "depth", "heads", "ffn", "layer_scale")


def describe(config: Any, info: Info, data: str) -> dict[str, Any]:
    """The description that `workers` read.

    Args:
      config: of the run.
      info: what its program knows of the data.
      data: path of the batches, uint8 [K, B, H, W, C].
    """
    c = config.to_dict()
    channels = info.fields["image"].shape[-1]
    groups = {name: _group(name, c["views"][name]) for name in sorted(c["views"])}
    shown = groups.get("global")
    several = {name: group["count"] for name, group in groups.items()}
    found = {
        "method": c["method"],
        "device": DEVICES.get(jax.default_backend(), jax.default_backend()),
        "threads": len(os.sched_getaffinity(0)),
        "precision": c["train"]["precision"],
        "batch": info.global_batch,
        "microbatches": c["train"]["microbatches"],
        "channels": channels,
        "mean": np.broadcast_to(c["data"]["mean"], channels).tolist(),
        "std": np.broadcast_to(c["data"]["std"], channels).tolist(),
        "views": groups,
        "num_global": shown["count"] if shown else sum(several.values()),
        "encoder": _encoder(c["encoder"]),
        "heads": _heads(c["student"]),
        "teachers": {n: _teacher(t, list(groups)) for n, t in c["teachers"].items()},
        "losses": {name: _term(term) for name, term in c["losses"].items()},
        "masks": c["masks"],
        "targets": sorted(c["targets"]),
        "batch_statistics": c["method_options"].get("batch_statistics", "all"),
        "method_options": c["method_options"],
        "optimizer": {**optim.DEFAULTS, **c["optimizer"]},
        "data": data,
    }
    found["optimizer"].pop("no_decay")
    return _plain(found, info.steps)


def _group(name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    drawn = {
        t: dataclasses.asdict(parse(kind, f"views.{name}.{t}", group[t]))
        for t, kind in TRANSFORMS.items()
        if group.get(t) is not None
    }
    drawn = {t: fields for t, fields in drawn.items() if fields.get("probability", 1.0) > 0}
    rest = {field: group.get(field) or None for field in ("turns", "tiles")}
    return {"count": group["count"], "size": group["size"], "transforms": drawn, **rest}


def _filled(package: ModuleType, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section with the defaults of the network that it names."""
    found = finder.find(package, section["name"], defines="build", field="name", what="a network")
    parameters = inspect.signature(found.build).parameters.items()
    empty = inspect.Parameter.empty
    defaults = {n: p.default for n, p in parameters if p.default is not empty and n != "dtype"}
    return defaults | dict(section)


def _encoder(section: Mapping[str, Any]) -> dict[str, Any]:
    found = _filled(encoders, section)
    if found["name"] == "vit":
        size = vit.SIZES[found["size"]]._asdict()
        found |= {name: size[name] for name in VIT if found[name] is None}
        if found["class_token"] is None:
            found["class_token"] = found["pool"] != "mean"
    return found


def _heads(student: Mapping[str, Any]) -> dict[str, Any]:
    """Each after the one that it reads."""
    waiting = {}
    for name, section in student.items():
        reads, output = head_place(name, section)
        waiting[name] = _filled(heads, section) | {"reads": reads, "output": output}
    found: dict[str, Any] = {}
    while waiting:
        outputs = [head["output"] for head in waiting.values()]
        ready = [name for name, head in waiting.items() if head["reads"] not in outputs]
        found |= {name: waiting.pop(name) for name in ready}
    return found


def _teacher(teacher: Mapping[str, Any], groups: list[str]) -> dict[str, Any]:
    views = teacher.get("views") or (["global"] if "global" in groups else groups)
    views = [views] if isinstance(views, str) else list(views)
    return {"decay": 0.0, "follows": [], **teacher, "views": views}


def _term(term: Mapping[str, Any]) -> dict[str, Any]:
    pairs = "cross" if term.get("teacher") else "all"
    kept = {name: term[name] for name in TERM if name in term}
    kept |= {name: term[name] for name in ("center",) if name in term}
    fields = {n: x for n, x in term.items() if n not in TERM and n not in ARGUMENTS}
    return {"pairs": pairs, "weight": 1.0, "num_slices": 256, **kept, "fields": fields}


def _plain(value: Any, steps: int) -> Any:
    """For JSON; a schedule becomes its number in the middle of the run."""
    if isinstance(value, Mapping):
        return {key: _plain(x, steps) for key, x in value.items()}
    if isinstance(value, list | tuple):
        kind, *numbers = value or ("",)
        if isinstance(kind, str) and numbers and isinstance(numbers[0], int | float):
            return float(schedules.make(tuple(value), steps)(steps // 2))
        return [_plain(x, steps) for x in value]
    return value
