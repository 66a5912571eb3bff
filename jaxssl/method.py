"""The contract between a method and the loop: pure functions, named teachers, a step rule.

The loop sees a `Method` and nothing else; it never asks which method it is. A family
(`jaxssl/methods/<name>.py`) exposes `build(config, info) -> Method`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

PyTree = Any
Batch = Mapping[str, jax.Array]


KINDS = (
    "audio",
    "boxes",
    "graph",
    "image",
    "index",
    "keypoints",
    "label",
    "mask",
    "points",
    "series",
    "spikes",
    "table",
    "target",
    "tokens",
)
"""What a field of a batch can be; clips and volumes are images with a leading axis."""


class Field(NamedTuple):
    """A field of a batch: what it is, and the shape of one sample of it.

    Attributes:
      kind: one of KINDS, or the dotted name of a module that is a modality (`jaxssl.modalities`).
      shape: of one sample, e.g. (32, 32, 3); () is a number.
      dtype: name of the numpy dtype.
      facts: what a kind must know beside: a sample rate, columns, names of classes.
    """

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = "int32"
    facts: Mapping[str, Any] = {}


INDEX = Field("index")
"""The position of a sample in its source: every batch has it, as "index"."""

LABEL = Field("label")
"""The number of a class."""


class StreamInfo(NamedTuple):
    """What is known of a stream: N samples, of which B a step, over all devices."""

    num_samples: int
    global_batch: int


class Info(NamedTuple):
    """What the data and the durations say about a run; all that `build` may know beside its config.

    Attributes:
      fields: name in a batch -> `Field`; of a stream "<stream>/<field>".
      num_samples: N, the samples in the training split.
      num_classes: classes of `label`, 0 where there are no labels.
      steps: training steps of this stage.
      steps_per_epoch: N // global batch, at least 1.
      global_batch: B.
      streams: of `config.streams`, by name; where there are none, a batch has the fields of the
        training split by their own names.
      tables: what earlier stages made, by name (`jaxssl.tables`).
    """

    fields: Mapping[str, Field]
    num_samples: int
    num_classes: int
    steps: int
    steps_per_epoch: int
    global_batch: int
    streams: Mapping[str, StreamInfo] = {}
    tables: Mapping[str, Any] = {}

    def of_stream(self, name: str) -> "Info":
        """What is known of one stream, whose fields have their own names; "" is this itself."""
        if not name:
            return self
        return self._replace(fields=of_stream(self.fields, name), **self.streams[name]._asdict())

    def batch_of(self, field: str) -> int:
        """B of a field of the batch."""
        return self.of_stream(stream_of(field)).global_batch


def stream_of(field: str) -> str:
    """The stream that a field of a batch belongs to, "" where there are none.

    >>> stream_of("unlabelled/image"), stream_of("image")
    ('unlabelled', '')
    """
    return field.rpartition("/")[0]


def of_stream(batch: Mapping[str, Any], stream: str) -> dict[str, Any]:
    """The fields of one stream of a batch by their own names.

    >>> of_stream({"a/index": 1, "b/index": 2}, "b")
    {'index': 2}
    """
    own = {name: x for name, x in batch.items() if stream_of(name) == stream}
    return {name.rpartition("/")[2]: x for name, x in own.items()}


class Aux(NamedTuple):
    """What a loss returns beside its value: the next `extra`, and scalars to report."""

    extra: PyTree
    metrics: Mapping[str, jax.Array]


class Context(NamedTuple):
    """All that a loss or a readout may read; `Ops.context` builds it.

    Attributes:
      params: one top-level name per network.
      teachers: name -> what `Teacher.read` gives, without gradient.
      extra: every other array that lives across steps.
      batch: of the step.
      key: of the step.
      step: of the state.
    """

    params: PyTree
    teachers: Mapping[str, PyTree]
    extra: PyTree
    batch: Batch
    key: jax.Array
    step: jax.Array


LossFn = Callable[[Context], tuple[jax.Array, Aux]]
Readout = Callable[[Context], Mapping[str, jax.Array]]

PRETEXT = "pretext"
"""The readout {term: [2]}: the error of what is predicted, and that of the best constant."""

PICTURES = "pictures/"
"""Readouts of this prefix are for the report: OrderedDict caption -> [B, h, w, C] in [0, 1]."""


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
      context: (state, batch, key=None) -> Context; the key of the step by default.
    """

    grad: Callable[..., Any]
    loss: Callable[..., Any]
    apply: Callable[..., Any]
    teach: Callable[..., Any]
    key: Callable[..., Any]
    context: Callable[..., Context]


StepRule = Callable[[Ops, Any, Batch], tuple[Any, Mapping[str, jax.Array]]]


class Method(NamedTuple):
    """A self-supervised or teacher-student method, as pure functions.

    Attributes:
      init: (key, batch) -> (params, extra); `params` has one top-level name per network.
      losses: name -> (Context) -> (scalar, Aux).
      readouts: name -> (Context) -> {output: array}, in evaluation mode. Those of an encoder have
        the name of its network, and give {"pooled": [B, D], ...}; the first is the default. Others
        are `PRETEXT`, where something hidden is predicted, and `PICTURES`.
      teachers: name -> Teacher.
      step: the step rule; None means one gradient step.
      optimizers: name -> Optimizer; {} means `config.optimizer` on everything, as "main".
    """

    init: Callable[[jax.Array, Batch], tuple[PyTree, PyTree]]
    losses: Mapping[str, LossFn]
    readouts: Mapping[str, Readout]
    teachers: Mapping[str, Teacher] = {}
    step: StepRule | None = None
    optimizers: Mapping[str, Optimizer] = {}

    @property
    def encoders(self) -> dict[str, Readout]:
        """The readouts of encoders."""
        others = (PRETEXT, PICTURES)
        return {name: f for name, f in self.readouts.items() if not name.startswith(others)}

    @property
    def pictures(self) -> dict[str, Readout]:
        """Title -> the readout of pictures for the report."""
        found = {n: f for n, f in self.readouts.items() if n.startswith(PICTURES)}
        return {name.removeprefix(PICTURES): f for name, f in found.items()}
