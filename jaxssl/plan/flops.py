"""FLOPs of a traced program, counted from its matrix products and convolutions."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

# Work of another kind than products, whose cost no simple rule gives.
UNCOUNTED = {
    *("cholesky", "eig", "eigh", "fft", "hessenberg", "householder_product", "lu", "qr", "schur"),
    *("svd", "triangular_solve", "tridiagonal", "tridiagonal_solve"),
    *("custom_call", "ffi_call", "pallas_call", "pure_callback", "io_callback"),
}
RECOMPUTED = "rematted_computation"  # the name that JAX gives to the forward part of a backward


class Flops(NamedTuple):
    """FLOPs over all devices: 2 for each multiplication and addition of a product.

    Attributes:
      model: of the forward and backward passes, each product once.
      recomputed: of the forward products that are computed again to save memory.
      uncounted: what is not in either number, name -> how many places in the program.
    """

    model: float
    recomputed: float
    uncounted: dict[str, int]


def count(fn: Any, *args: Any) -> Flops:
    """The FLOPs of `fn(*args)`, traced and not run; `args` may be shapes.

    A scan counts its length times its body, a condition its dearest branch, and what differs
    between platforms the branch of those that are not named. A `while` whose number of turns is
    not known before it runs counts one turn and is named in `uncounted`.

    >>> import jax.numpy as jnp
    >>> count(jnp.dot, jnp.ones((2, 3)), jnp.ones((3, 5))).model
    60.0
    """
    closed = jax.make_jaxpr(fn)(*args)
    # What nothing reads is not computed: parts of a recomputation, among others.
    live, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    uncounted: Counter[str] = Counter()
    model, recomputed = _total(live, False, uncounted)
    return Flops(model, recomputed, dict(sorted(uncounted.items())))


def _total(jaxpr: Any, again: bool, uncounted: Counter[str]) -> tuple[float, float]:
    """(FLOPs of the passes, FLOPs of recomputation)."""
    sums = [0.0, 0.0]
    for eqn in jaxpr.eqns:
        # Names of inner programs are relative to the equation that holds them.
        here = again or RECOMPUTED in str(eqn.source_info.name_stack)
        for i, x in enumerate(_equation(eqn, here, uncounted)):
            sums[i] += x
    return sums[0], sums[1]


def _equation(eqn: Any, again: bool, uncounted: Counter[str]) -> tuple[float, float]:
    name = eqn.primitive.name
    if name in ("dot_general", "conv_general_dilated"):
        found = _product(eqn) if name == "dot_general" else _convolution(eqn)
        return (0.0, found) if again else (found, 0.0)
    if name in UNCOUNTED:
        uncounted[name] += 1
        return 0.0, 0.0
    inner = [_total(j, again, uncounted) for j in programs(eqn)]
    if not inner:
        return 0.0, 0.0
    if name == "cond":
        return inner[-1] if eqn.params.get("branches_platforms") else max(inner, key=sum)
    model, recomputed = (sum(parts) for parts in zip(*inner))
    if name == "while" and model + recomputed:
        uncounted["while, one turn counted"] += 1
    times = eqn.params["length"] if name == "scan" else 1
    if name == "shard_map":  # its body is the work of one device
        times = eqn.params["mesh"].size
    return model * times, recomputed * times


def programs(eqn: Any) -> Iterator[Any]:
    """The programs that an equation holds, each once."""
    if eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
        held = [eqn.params["call_jaxpr"]]  # the other ones are its derivatives
    else:
        held = [
            part
            for value in eqn.params.values()
            for part in (value if isinstance(value, tuple | list) else (value,))
        ]
    for part in held:
        program = part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
        if isinstance(program, core.Jaxpr):
            yield program


def _product(eqn: Any) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(eqn: Any) -> float:
    """Every pair of an output and a weight whose input is neither padding nor dilation."""
    numbers = eqn.params["dimension_numbers"]
    image, kernel = (v.aval.shape for v in eqn.invars)
    out = eqn.outvars[0].aval.shape
    pairs = 1.0
    for i, padding in enumerate(eqn.params["padding"]):
        pairs *= taps(
            size=image[numbers.lhs_spec[2 + i]],
            kernel=kernel[numbers.rhs_spec[2 + i]],
            out=out[numbers.out_spec[2 + i]],
            stride=eqn.params["window_strides"][i],
            low=padding[0],
            dilation=eqn.params["lhs_dilation"][i],
            kernel_dilation=eqn.params["rhs_dilation"][i],
        )
    batch, features = (out[numbers.out_spec[i]] for i in (0, 1))
    return 2.0 * batch * features * kernel[numbers.rhs_spec[1]] * pairs


def taps(
    *,
    size: int,
    kernel: int,
    out: int,
    stride: int = 1,
    low: int = 0,
    dilation: int = 1,
    kernel_dilation: int = 1,
) -> int:
    """Pairs (output, weight) along one axis that meet a real input.

    Args:
      size: of the input.
      kernel: of the window.
      out: of the output.
      stride: of the window.
      low: padding before the input.
      dilation: of the input: this less one zeros between its values.
      kernel_dilation: of the window.

    >>> taps(size=4, kernel=3, out=4, low=1)  # of 12 pairs two meet the padding
    10
    """
    place = np.arange(out)[:, None] * stride + np.arange(kernel) * kernel_dilation - low
    real = (place >= 0) & (place <= (size - 1) * dilation) & (place % dilation == 0)
    return int(real.sum())
