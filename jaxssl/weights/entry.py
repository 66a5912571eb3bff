"""One array of an encoder, under its own path and under the name that PyTorch's models give it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from einops import rearrange

Change = Callable[[Any], Any]
State = dict[str, Any]


def _same(array: Any) -> Any:
    return array


class Entry(NamedTuple):
    """Where an array is here and there, and what turns the one into the other.

    Attributes:
      name: in timm's state dict.
      path: of the encoder's variables, e.g. "params/norm/scale".
      out: the array here -> the array there.
      back: the inverse of `out`.
      layer: place along the first axis where the layers of a scan are stacked; None: not stacked.
    """

    name: str
    path: str
    out: Change = _same
    back: Change = _same
    layer: int | None = None


class Family(NamedTuple):
    """How one kind of encoder is named elsewhere.

    Attributes:
      entries: encoder -> all of its arrays.
      outside: beginnings of names that belong to no encoder: classifiers, other networks' heads.
      finish: (encoder, state dict of the entries) -> that of timm's model.
      prepare: (encoder, any known state dict) -> one with the names and layouts of the entries.
    """

    entries: Callable[[Any], list[Entry]]
    outside: tuple[str, ...]
    finish: Callable[[Any, State], State] = lambda encoder, state: state
    prepare: Callable[[Any, State], State] = lambda encoder, state: state


def linear(name: str, path: str, *, bias: bool = True, layer: int | None = None) -> list[Entry]:
    """A dense layer: kernel [in, out] here, weight [out, in] there."""
    swap = lambda w: w.T
    found = [Entry(f"{name}.weight", f"params/{path}/kernel", swap, swap, layer)]
    return found + ([Entry(f"{name}.bias", f"params/{path}/bias", layer=layer)] if bias else [])


def conv(name: str, path: str, *, bias: bool) -> list[Entry]:
    """A convolution: kernel [h, w, in, out] here, weight [out, in, h, w] there."""
    out = lambda w: w.transpose(3, 2, 0, 1)
    back = lambda w: w.transpose(2, 3, 1, 0)
    found = [Entry(f"{name}.weight", f"params/{path}/kernel", out, back)]
    return found + ([Entry(f"{name}.bias", f"params/{path}/bias")] if bias else [])


def patches(name: str, path: str, side: int) -> list[Entry]:
    """A dense layer on patches [(h w in), out] here, a convolution [out, in, h, w] there."""
    out = lambda w: rearrange(w, "(p q c) d -> d c p q", p=side, q=side)
    back = lambda w: rearrange(w, "d c p q -> (p q c) d")
    return [
        Entry(f"{name}.weight", f"params/{path}/kernel", out, back),
        Entry(f"{name}.bias", f"params/{path}/bias"),
    ]


def norm(name: str, path: str, *, layer: int | None = None) -> list[Entry]:
    """The scale and bias of a normalisation."""
    return [
        Entry(f"{name}.weight", f"params/{path}/scale", layer=layer),
        Entry(f"{name}.bias", f"params/{path}/bias", layer=layer),
    ]


def batch_norm(name: str, path: str) -> list[Entry]:
    """The scale, bias and running statistics of a batch normalisation."""
    return [
        *norm(name, path),
        Entry(f"{name}.running_mean", f"batch_stats/{path}/mean"),
        Entry(f"{name}.running_var", f"batch_stats/{path}/var"),
    ]


def leading(name: str, path: str, axes: int) -> Entry:
    """A param that has `axes` axes of length 1 in front there."""
    return Entry(
        name,
        f"params/{path}",
        lambda a: a.reshape((1,) * axes + a.shape),
        lambda a: a.reshape(a.shape[axes:]),
    )
