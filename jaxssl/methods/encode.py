"""The evaluation-mode encoders of a family: what the evals read of the student and its teachers."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxssl import views
from jaxssl.method import Batch, EncodeFn, PyTree


def encoders_of(config: Any, module: nn.Module) -> dict[str, EncodeFn]:
    """The student's encoder, and that of every teacher that follows one, by name.

    They read the params "encoder" and the statistics `extra["batch_stats"][name]["encoder"]`.

    Args:
      config: of the run.
      module: the encoder.
    """
    found = {"student": _encoder_of("student", config, module)}
    for name in config.teachers:
        follows = config.teachers[name].get("follows", ())
        if not follows or "encoder" in follows:
            found[name] = _encoder_of(name, config, module)
    return found


def _encoder_of(name: str, config: Any, module: nn.Module) -> EncodeFn:
    def encode(
        params: PyTree, seen: Mapping[str, PyTree], extra: PyTree, batch: Batch
    ) -> Mapping[str, jax.Array]:
        net = params if name == "student" else seen[name]
        size = config.evals.size or batch["image"].shape[-2]
        x = views.evaluation_view(
            batch["image"], size=size, mean=config.data.mean, std=config.data.std
        )
        variables = {"params": net["encoder"]}
        stats = extra["batch_stats"][name]
        if "encoder" in stats:
            variables["batch_stats"] = stats["encoder"]
        found: Any = module.apply(variables, x, train=False)
        return {k: v.astype(jnp.float32) for k, v in found.items()}

    return encode
