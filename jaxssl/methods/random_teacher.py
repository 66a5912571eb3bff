"""Joint embedding whose student starts near a frozen random teacher.

    θ_S = ((1 - α) θ_T + α θ') / sqrt(α^2 + (1 - α)^2)

with two independent draws of the initialisation: θ_T of the teacher, which never moves, and θ'. The
root keeps the variance of the weights. Sarnthein et al., 2023, "Random teachers are good teachers",
arXiv 2302.12091.

The config is that of `composed` with one frozen, random teacher and `method_options.alpha`.
At α = 0, and at an α that rounds away beside the weights (1e-7 in float32), student and teacher
agree, the gradient is zero and nothing is learnt.
"""

import math
from typing import Any

import jax

from jaxssl import teachers
from jaxssl.config.errors import ConfigError
from jaxssl.config.naming import fold_name
from jaxssl.method import Batch, Info, Method, PyTree
from jaxssl.methods.composed import wiring
from jaxssl.state import example_batch

# In `extra`: the key that the teacher is drawn from, so that `Teacher.init` draws the same again.
KEY = "teacher_key"


def build(config: Any, info: Info) -> Method:
    """The `Method` of a joint-embedding config with `method_options.alpha` and one random teacher.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    alpha = config.method_options.get("alpha")
    if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise ConfigError(f"method_options.alpha: found {alpha!r}, expected a number from 0 to 1")
    if len(config.teachers) != 1:
        raise ConfigError(
            f"teachers: found {len(config.teachers)}, expected one, frozen and random"
        )
    (name,) = config.teachers
    entry = config.teachers[name]
    if (entry.get("rule"), entry.get("source")) != ("frozen", "random"):
        raise ConfigError(f"teachers.{name}: expected rule 'frozen' with source 'random'")
    built = wiring.build(_without_alpha(config), info)
    root = math.hypot(alpha, 1 - alpha)

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        teacher_key = fold_name(key, name)
        theirs, _ = built.init(teacher_key, batch)
        fresh, extra = built.init(key, batch)
        near = jax.tree.map(lambda t, f: ((1 - alpha) * t + alpha * f) / root, theirs, fresh)
        return near, {**extra, KEY: jax.random.key_data(teacher_key)}

    def drawn_again(key: jax.Array, params: PyTree, extra: PyTree, artifacts: Any) -> PyTree:
        return built.init(jax.random.wrap_key_data(extra[KEY]), example_batch(info))[0]

    teacher = teachers.frozen(drawn_again, entry.get("follows", ()), field=f"teachers.{name}")
    return built._replace(init=init, teachers={name: teacher})


def _without_alpha(config: Any) -> Any:
    """`composed` knows no α."""
    rest = config.copy_and_resolve_references()
    with rest.unlocked():
        del rest.method_options.alpha
    return rest
