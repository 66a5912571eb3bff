"""The contract between a method and the loop: pure functions, named teachers, a step rule.

The loop sees a `Method` and nothing else; it never asks which method it is. A family
(`jaxssl/methods/<name>.py`) exposes `build(config, info) -> Method`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

PyTree = Any
Batch = Mapping[str, jax.Array]


class Info(NamedTuple):
    """What the data and the durations say about a run; all that `build` may know beside its config.

    Attributes:
      shapes: batch field name -> shape of one sample, e.g. {"image": (32, 32, 3)}.
      dtypes: batch field name -> numpy dtype name, e.g. {"image": "uint8"}.
      num_samples: N, the samples in the training split.
      num_classes: classes of `label`, 0 where there are no labels.
      steps: training steps of this stage.
      steps_per_epoch: N // global batch, at least 1.
      global_batch: B.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    num_samples: int
    num_classes: int
    steps: int
    steps_per_epoch: int
    global_batch: int


class Aux(NamedTuple):
    """What a loss returns beside its value: the next `extra`, and scalars to report."""

    extra: PyTree
    metrics: Mapping[str, jax.Array]


LossFn = Callable[
    [PyTree, Mapping[str, PyTree], PyTree, Batch, jax.Array, jax.Array], tuple[jax.Array, Aux]
]
EncodeFn = Callable[[PyTree, Mapping[str, PyTree], PyTree, Batch], Mapping[str, jax.Array]]


class Teacher(NamedTuple):
    """A named teacher: how its state starts, follows and is read.

    Attributes:
      init: (key, params, extra, artifacts) -> t. Always a copy, never an alias of the params.
      update: (t, params, extra, step) -> t.
      read: (t, params, extra, step) -> what losses see. The loop stops its gradient.
      when: "before" or "after" the gradient step.
    """

    init: Callable[[jax.Array, PyTree, PyTree, Mapping[str, PyTree]], PyTree]
    update: Callable[[PyTree, PyTree, PyTree, jax.Array], PyTree]
    read: Callable[[PyTree, PyTree, PyTree, jax.Array], PyTree]
    when: str = "after"


class Optimizer(NamedTuple):
    """A gradient transformation and the top-level names of params it moves; () means all.

    `tx.update` is called with the extra argument `step`, so that schedules read the state's step.
    """

    tx: Any
    on: tuple[str, ...] = ()


class Ops(NamedTuple):
    """All that a step rule may touch.

    Attributes:
      grad: (state, batch, loss="main", on=(), key=None) -> (grads, value, Aux).
      loss: (state, batch, loss="main", key=None) -> (value, Aux).
      apply: (state, grads, optimizer="main") -> state.
      teach: (state, when) -> state.
      key: (state, salt=0) -> key.
    """

    grad: Callable[..., Any]
    loss: Callable[..., Any]
    apply: Callable[..., Any]
    teach: Callable[..., Any]
    key: Callable[..., Any]


StepRule = Callable[[Ops, Any, Batch], tuple[Any, Mapping[str, jax.Array]]]


class Pictures(NamedTuple):
    """Rows of pictures for the report.

    Attributes:
      captions: of the K pictures of a sample.
      make: (params, teachers, extra, batch, key, step) -> [B, K, h, w, C] in [0, 1].
    """

    captions: tuple[str, ...]
    make: Callable[..., jax.Array]


class Method(NamedTuple):
    """A self-supervised or teacher-student method, as pure functions.

    Attributes:
      init: (key, batch) -> (params, extra); `params` has one top-level name per network.
      losses: name -> (params, teachers, extra, batch, key, step) -> (scalar, Aux).
      encoders: name -> (params, teachers, extra, batch) -> {"pooled": [B, D], ...}; evaluation
        mode, no key. The first is the default.
      teachers: name -> Teacher.
      step: the step rule; None means one gradient step.
      optimizers: name -> Optimizer; {} means `config.optimizer` on everything, as "main".
      pretext: (params, teachers, extra, batch, key, step) -> {term: (its error, that of the best
        constant)}, in evaluation mode; None where nothing hidden is predicted.
      pictures: title -> `Pictures`, in evaluation mode.
    """

    init: Callable[[jax.Array, Batch], tuple[PyTree, PyTree]]
    losses: Mapping[str, LossFn]
    encoders: Mapping[str, EncodeFn]
    teachers: Mapping[str, Teacher] = {}
    step: StepRule | None = None
    optimizers: Mapping[str, Optimizer] = {}
    pretext: Callable[..., Mapping[str, tuple[jax.Array, jax.Array]]] | None = None
    pictures: Mapping[str, Pictures] = {}
