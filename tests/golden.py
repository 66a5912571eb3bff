"""Losses against published values and gradients, and on one device against eight."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

CASES = (0, 1)


def load(shared: pathlib.Path, name: str, case: int) -> tuple[dict[str, Any], Any, dict, dict]:
    """(inputs by name, value, gradients by name, hyperparameters) of a case."""
    with np.load(shared / "golden" / f"{name}.npz") as f:
        of_case = {k.removeprefix(f"{case}/"): f[k] for k in f if k.startswith(f"{case}/")}
    inputs = {k.removeprefix("in_"): v for k, v in of_case.items() if k.startswith("in_")}
    grads = {k.removeprefix("grad_"): v for k, v in of_case.items() if k.startswith("grad_")}
    return inputs, of_case["out"], grads, json.loads(str(of_case["meta"]))["hyper"]


def value_and_grads(fn: Callable[..., Any], arrays: Sequence[Any], **hyper: Any) -> tuple[Any, Any]:
    """The value, and the gradients by all floating-point arrays; of a weighted sum if an array."""
    moving = [i for i, a in enumerate(arrays) if np.asarray(a).dtype.kind == "f"]

    def scalar(floats: list[Any]) -> tuple[Any, Any]:
        given = list(arrays)
        for i, x in zip(moving, floats):
            given[i] = x
        out = fn(*given, **hyper)
        return (
            out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)
        ).sum() if out.ndim else out, out

    (_, out), grads = jax.jit(jax.value_and_grad(scalar, has_aux=True))([arrays[i] for i in moving])
    return out, dict(zip(moving, grads))


def check(
    shared: pathlib.Path, name: str, case: int, fn: Callable[..., Any], drop: Sequence[str] = ()
) -> None:
    """`fn(*inputs, **hyper)` has the value and the gradients of the file, by keyword after two.

    Args:
      shared: the fixture.
      name, case: which file and case.
      fn: takes the inputs in the order of the file by name, and the hyperparameters by keyword.
      drop: hyperparameters of the file that `fn` does not have.
    """
    inputs, value, grads, hyper = load(shared, name, case)
    hyper = {k: v for k, v in hyper.items() if k not in drop}
    names = list(inputs)
    by_name = lambda *arrays, **kw: fn(**dict(zip(names, arrays)), **kw)
    out, found = value_and_grads(by_name, list(inputs.values()), **hyper)
    np.testing.assert_allclose(out, value, rtol=2e-5, atol=1e-6)
    for i, n in enumerate(names):
        if n in grads:
            scale = np.abs(grads[n]).max()
            np.testing.assert_allclose(found[i], grads[n], atol=1e-4 * scale + 1e-12, err_msg=n)


def check_outputs(shared: pathlib.Path, name: str, fn: Callable[..., Any]) -> None:
    """`fn` has all values, and the gradients of the first, of every case; all by keyword.

    The fields of a named tuple are the outputs by name. A file without gradients is only run.
    """
    with np.load(shared / "golden" / f"{name}.npz") as f:
        wanted = {k: f[k] for k in f if k.split("/")[1].startswith("out")}
    for case in sorted({key.split("/")[0] for key in wanted}):
        inputs, _, grads, hyper = load(shared, name, case)

        def outputs(arrays: Any, hyper: Any = hyper) -> tuple[Any, dict[str, Any]]:
            out = fn(**arrays, **hyper)
            named = out._asdict() if hasattr(out, "_asdict") else {"": out}
            first = jnp.asarray(next(iter(named.values())))
            turned = first * jnp.cos(jnp.arange(first.size)).reshape(first.shape)
            return turned.sum(), {**named, "": first}

        def both(moving: Any, rest: Any, outputs: Any = outputs) -> tuple[Any, Any]:
            of = lambda moving: outputs({**rest, **moving})
            (_, found), slopes = jax.value_and_grad(of, has_aux=True)(moving)
            return found, slopes

        rest = {k: v for k, v in inputs.items() if k not in grads}
        found, slopes = jax.jit(both)({k: inputs[k] for k in grads}, rest)
        for key, value in wanted.items():
            if key.startswith(f"{case}/"):
                got = np.asarray(found[key.split("/out")[1].lstrip("_")], np.float64)
                assert got.shape == value.shape, (name, key)
                atol = 2e-5 * max(np.abs(value).max(), 1e-6)
                np.testing.assert_allclose(got, value, 0, atol, err_msg=f"{name} {key}")
        for key, slope in grads.items():
            top = np.abs(slope).max()
            atol = 1e-4 * top if top > 0 else 1e-6
            np.testing.assert_allclose(slopes[key], slope, 0, atol, err_msg=f"{name} {case} {key}")


def check_devices(fn: Callable[..., Any], arrays: Sequence[Any], batch_axes: Sequence[int | None]):
    """The same value and gradients on one device and on eight, split on each array's batch axis."""
    one, grads = value_and_grads(fn, arrays)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        split = []
        for a, axis in zip(arrays, batch_axes):
            spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")
            split.append(jax.device_put(a, NamedSharding(mesh, spec)))
        eight, other = value_and_grads(fn, split)
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-6)
    for i, g in grads.items():
        scale = float(jnp.abs(g).max())
        np.testing.assert_allclose(other[i], g, atol=1e-5 * scale + 1e-12)
