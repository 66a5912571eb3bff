"""The optimizer of a run, built from config fields; every schedule reads the state's step.

One update, in this order (g gradient, θ params, η learning rate, λ weight decay, f_η and f_λ the
factors of a leaf's group, d its layer-wise factor):

  1. gradients in float32; those of frozen leaves are zeroed, so that no norm below sees them;
  2. `clip_per_tensor`, then `clip_norm` over everything;
  3. the rule `name`:
     adamw   u = Adam(g) + λ f_λ θ              Loshchilov & Hutter 2019, arXiv:1711.05101
     lion    u = Lion(g) + λ f_λ θ              Chen et al. 2023, arXiv:2302.06675
     sgd     u = Momentum(g + λ f_λ θ)          the decay passes through the momentum, as published
     lars    u = Momentum(r (g + λ f_λ θ))      You et al. 2017, arXiv:1708.03888
             r = trust_coefficient ‖θ‖ / ‖g + λ f_λ θ‖, and 1 where either norm is 0
  4. θ <- θ - η f_η d u, and nothing at all for a frozen leaf.

Leaves matched by `no_decay` have no weight decay, and under lars no trust ratio either. A leaf that
is frozen until a step keeps its moments and Adam's count untouched until then, so that its bias
correction starts with its first update; one that is always frozen has no moments.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxssl.config import schedules
from jaxssl.config.errors import ConfigError, near
from jaxssl.optim.param_groups import ALWAYS, NO_DECAY, Group, Leaf, check_fields, plan

PyTree = Any

RULES = ("adamw", "lars", "lion", "sgd")

DEFAULTS: Mapping[str, Any] = {
    "name": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "momentum": 0.9,
    "nesterov": False,
    "trust_coefficient": 1e-3,
    "clip_norm": 0.0,
    "clip_per_tensor": 0.0,
    "no_decay": NO_DECAY,
    "groups": {},
    "layer_decay": 0.0,
}
"""Every field of `config.optimizer` and its value where absent; see `make`."""


class Row(NamedTuple):
    """One line of the start screen: leaves that are treated alike.

    Attributes:
      group: name of the group, "default" outside of all.
      decays: whether weight decay (and lars' trust ratio) applies.
      freeze_until: first step that moves them; 0 from the start, -1 never.
      learning_rate: smallest and largest factor on the learning rate at that step.
      leaves: how many arrays.
      params: how many numbers.
    """

    group: str
    decays: bool
    freeze_until: int
    learning_rate: tuple[float, float]
    leaves: int
    params: int


def make(
    config: Any, params: PyTree, steps: int, field: str = "optimizer"
) -> optax.GradientTransformationExtraArgs:
    """The gradient transformation of `config`; its `update` takes the extra argument `step`.

    Args:
      config: mapping with fields of `DEFAULTS`.
        name: one of `RULES`.
        learning_rate, weight_decay: number or schedule.
        beta1, beta2, eps: adamw; lion reads the betas.
        momentum, nesterov: sgd and lars; trust_coefficient: lars.
        clip_norm: largest global norm of the gradient, 0 for no limit.
        clip_per_tensor: largest norm of each array's gradient, 0 for no limit.
        no_decay: regexes searched in the "/"-joined paths, or `param_groups.VECTORS`; () for none.
        groups: name -> {match: regex searched in the paths; learning_rate, weight_decay: factors,
          number or schedule; own_learning_rate: number or schedule in place of `learning_rate`
          above; freeze_until: first step that moves it, 0 at once, -1 never; unit_rows: after each
          update, scale the rows (last axis) to unit norm}. A leaf belongs to one group at most,
          because a config does not keep the order of its entries.
        layer_decay: factor per layer counted down from the top of each encoder, see
          `param_groups.layer_factors`; 0 or 1 for none.
      params: the params that it will move, or their shapes.
      steps: length of the run, for the schedules.
      field: the config field, for error messages.

    Returns:
      An optax transformation. `update(grads, state, params, step=...)`.

    Raises:
      ConfigError: an unknown field, rule or schedule, a pattern that matches nothing, a leaf in two
        groups, a number out of range.

    >>> import jax.numpy as jnp
    >>> tx = make({"name": "sgd", "learning_rate": ("linear", 1.0, 0.0), "momentum": 0.0},
    ...           {"w": jnp.ones(2)}, steps=10)
    >>> updates, _ = tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}),
    ...                        {"w": jnp.ones(2)}, step=5)
    >>> updates["w"].tolist()
    [-0.5, -0.5]
    """
    c = _checked(config, field)
    if c["name"] not in RULES:
        raise ConfigError(
            f"{field}.name is {c['name']!r}, expected a known rule{near(str(c['name']), RULES)}"
        )
    leaves = plan(c, params, steps, field)
    learning_rate = schedules.make(c["learning_rate"], steps, f"{field}.learning_rate")
    weight_decay = schedules.make(c["weight_decay"], steps, f"{field}.weight_decay")
    decay = _add_decay(leaves, weight_decay)
    links = [_freeze(leaves)]
    if c["clip_per_tensor"]:
        links.append(_clip_per_tensor(c["clip_per_tensor"]))
    if c["clip_norm"]:
        links.append(optax.clip_by_global_norm(c["clip_norm"]))
    if c["name"] in ("adamw", "lion"):
        links += [_moments(c, leaves), decay]
    else:
        links.append(decay)
        if c["name"] == "lars":
            ratio = optax.scale_by_trust_ratio(trust_coefficient=c["trust_coefficient"])
            links.append(optax.masked(ratio, jax.tree.map(lambda leaf: leaf.decays, leaves)))
        links.append(_moments(c, leaves))
    links += [_scale_by_learning_rate(leaves, learning_rate), _freeze(leaves), _unit_rows(leaves)]
    return _in_float32(optax.chain(*links))


def learning_rate_at(config: Any, steps: int, field: str = "optimizer") -> schedules.Schedule:
    """The learning rate as a function of the step, before the factors of groups and layers."""
    c = _checked(config, field)
    return schedules.make(c["learning_rate"], steps, f"{field}.learning_rate")


def describe(config: Any, params: PyTree, steps: int, field: str = "optimizer") -> list[Row]:
    """What happens to which leaves, one row per (group, decays or not), in order of the names.

    Args, errors: as for `make`.
    """
    c = _checked(config, field)
    rows: dict[tuple[str, bool], list[Leaf]] = {}
    for leaf in jax.tree.leaves(plan(c, params, steps, field)):
        rows.setdefault((leaf.group.name, leaf.decays), []).append(leaf)
    return [_row(*rows[key]) for key in sorted(rows, key=lambda k: (k[0], not k[1]))]


def _row(*leaves: Leaf) -> Row:
    group = leaves[0].group
    factor = 0.0
    if group.freeze_until != ALWAYS:
        factor = float(group.learning_rate(group.freeze_until))
    factors = [factor * leaf.layer_factor for leaf in leaves]
    span = (min(factors), max(factors))
    params = sum(leaf.size for leaf in leaves)
    return Row(group.name, leaves[0].decays, group.freeze_until, span, len(leaves), params)


def _checked(config: Any, field: str) -> dict[str, Any]:
    """Every field of `DEFAULTS`, in range."""
    values = check_fields(config, DEFAULTS, field)
    for name in ("clip_norm", "clip_per_tensor", "layer_decay"):
        if not (_is_number(values[name]) and values[name] >= 0):
            raise ConfigError(f"{field}.{name} is {values[name]!r}, expected a number, 0 for none")
    for name in ("beta1", "beta2", "momentum"):
        if not (_is_number(values[name]) and 0 <= values[name] < 1):
            raise ConfigError(f"{field}.{name} is {values[name]!r}, expected a number in [0, 1)")
    for name in ("eps", "trust_coefficient"):
        if not (_is_number(values[name]) and values[name] > 0):
            raise ConfigError(f"{field}.{name} is {values[name]!r}, expected a positive number")
    for name in ("learning_rate", "weight_decay"):
        if _is_number(values[name]) and values[name] < 0:
            raise ConfigError(f"{field}.{name} is {values[name]!r}, expected no less than zero")
    if not isinstance(values["nesterov"], bool):
        raise ConfigError(f"{field}.nesterov is {values['nesterov']!r}, expected True or False")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# ---------------------------------------------------------------------------- the links


def _link(
    update: Callable[[PyTree, PyTree, jax.Array], PyTree],
) -> optax.GradientTransformationExtraArgs:
    """A stateless link from (updates, params, step) -> updates."""

    def run(
        updates: PyTree, state: PyTree, params: PyTree = None, *, step: jax.Array, **_: Any
    ) -> tuple[PyTree, PyTree]:
        return update(updates, params, step), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), run)


def _in_float32(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`tx` on float32 copies, so that moments and norms are float32 whatever the params are."""
    inner = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> PyTree:
        return inner.init(optax.tree.cast(params, jnp.float32))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, step: jax.Array, **_: Any
    ) -> tuple[PyTree, PyTree]:
        updates, params = optax.tree.cast((updates, params), jnp.float32)
        return inner.update(updates, state, params, step=jnp.asarray(step))

    return optax.GradientTransformationExtraArgs(init, update)


def _freeze(leaves: PyTree) -> optax.GradientTransformationExtraArgs:
    """Zeros for leaves that do not move at this step; NaNs in them vanish too."""

    def one(leaf: Leaf, update: jax.Array, step: jax.Array) -> jax.Array:
        until = leaf.group.freeze_until
        if until == 0:
            return update
        if until == ALWAYS:
            return jnp.zeros_like(update)
        return jnp.where(step >= until, update, 0.0)

    return _link(
        lambda updates, params, step: jax.tree.map(lambda l, u: one(l, u, step), leaves, updates)
    )


def _clip_per_tensor(limit: float) -> optax.GradientTransformationExtraArgs:
    """Each array scaled down to norm `limit` where it is larger."""

    def one(update: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(update.ravel())
        return update * (limit / jnp.maximum(norm, limit))

    return _link(lambda updates, params, step: jax.tree.map(one, updates))


def _add_decay(
    leaves: PyTree, weight_decay: schedules.Schedule
) -> optax.GradientTransformationExtraArgs:
    """u + λ(step) f_λ(step) θ on the leaves that decay."""

    def update(updates: PyTree, params: PyTree, step: jax.Array) -> PyTree:
        strength = _per_group(leaves, lambda g: weight_decay(step) * g.weight_decay(step))
        return jax.tree.map(
            lambda leaf, u, p: u + strength[leaf.group.name] * p if leaf.decays else u,
            leaves,
            updates,
            params,
        )

    return _link(update)


def _scale_by_learning_rate(
    leaves: PyTree, learning_rate: schedules.Schedule
) -> optax.GradientTransformationExtraArgs:
    """-η(step) f_η(step) d u, with the group's own η where it has one."""

    def update(updates: PyTree, params: PyTree, step: jax.Array) -> PyTree:
        rate = _per_group(
            leaves, lambda g: (g.own_learning_rate or learning_rate)(step) * g.learning_rate(step)
        )
        return jax.tree.map(
            lambda leaf, u: -rate[leaf.group.name] * leaf.layer_factor * u, leaves, updates
        )

    return _link(update)


def _unit_rows(leaves: PyTree) -> optax.GradientTransformationExtraArgs:
    """The update that brings rows to unit norm, for the groups that ask for it."""

    def one(leaf: Leaf, update: jax.Array, param: jax.Array) -> jax.Array:
        if not leaf.group.unit_rows:
            return update
        moved = param + update
        norms = jnp.linalg.norm(moved, axis=-1, keepdims=True)
        return moved / jnp.maximum(norms, 1e-12) - param

    return _link(lambda updates, params, step: jax.tree.map(one, leaves, updates, params))


def _per_group(leaves: PyTree, value: Callable[[Group], jax.Array]) -> dict[str, jax.Array]:
    groups = {leaf.group.name: leaf.group for leaf in jax.tree.leaves(leaves)}
    return {name: value(group) for name, group in groups.items()}


def _moments(c: Mapping[str, Any], leaves: PyTree) -> optax.GradientTransformationExtraArgs:
    """The stateful part of the rule, one copy for each step at which leaves start to move."""
    rule: optax.GradientTransformation
    if c["name"] == "adamw":
        rule = optax.scale_by_adam(c["beta1"], c["beta2"], c["eps"])
    elif c["name"] == "lion":
        rule = optax.scale_by_lion(c["beta1"], c["beta2"])
    elif c["momentum"]:
        rule = optax.trace(c["momentum"], c["nesterov"])
    else:
        rule = optax.identity()
    starts = {leaf.group.freeze_until for leaf in jax.tree.leaves(leaves)}
    parts = {
        _part(until): optax.set_to_zero() if until == ALWAYS else _held(rule, until)
        for until in sorted(starts)
    }
    return optax.partition(parts, jax.tree.map(lambda leaf: _part(leaf.group.freeze_until), leaves))


def _part(until: int) -> str:
    return "frozen" if until == ALWAYS else f"from_step_{until}"


def _held(rule: optax.GradientTransformation, until: int) -> optax.GradientTransformation:
    """`rule` whose whole state, counts included, stands still before step `until`."""
    if until == 0:
        return rule

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, *, step: jax.Array, **_: Any
    ) -> tuple[PyTree, PyTree]:
        moved, after = rule.update(updates, state, params)
        live = step >= until
        return moved, jax.tree.map(lambda new, old: jnp.where(live, new, old), after, state)

    return optax.GradientTransformationExtraArgs(rule.init, update)
