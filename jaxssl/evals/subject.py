"""An encoder under evaluation, trained, at random init or none, with the data to judge it on."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxssl import data, modalities
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import content_hash
from jaxssl.data import Source
from jaxssl.evals.features import Features, device_batches, extract, to_host
from jaxssl.method import Field
from jaxssl.program import Program
from jaxssl.report.writers import METRICS, read_metrics
from jaxssl.state import State

Change = Callable[[Mapping[str, jax.Array]], Mapping[str, jax.Array]]
KINDS = ("trained", "random_init", "raw_input")


class Subject:
    """What an evaluator judges: features of the run's data, or of any other samples.

    Args:
      kind: one of KINDS.
      program: of the run; its mesh is the one that evaluators compute on.
      state: the encoder's; None for raw input.
      test: held-out samples; the others are those of `program.source`.
      encode: (state, batch, output) -> [B, ...], jitted, evaluation mode.
      folder: where features are kept for the next evaluation of the same encoder; None: nowhere.
      workdir: of the run, whose metrics are there; None: nowhere.

    Attributes:
      num_classes: labels lie in 0 ... num_classes - 1.
    """

    def __init__(
        self,
        kind: str,
        program: Program,
        state: State | None,
        test: Source,
        encode: Callable[[State, Mapping[str, jax.Array], str], jax.Array],
        folder: pathlib.Path | None = None,
        workdir: pathlib.Path | None = None,
    ):
        assert kind in KINDS and (state is None) == (kind == "raw_input")
        self.kind, self.program, self.state, self.test_source = kind, program, state, test
        self.num_classes = program.info.num_classes
        self._encode, self._folder, self._workdir = encode, folder, workdir

    @functools.cached_property
    def train(self) -> Features:
        """`evals.bank` training samples, plainly encoded."""
        return self.features(self.program.source, limit=self.program.config.evals.bank)

    @functools.cached_property
    def test(self) -> Features:
        """`evals.test` held-out samples, plainly encoded."""
        return self.features(self.test_source, limit=self.program.config.evals.test)

    @functools.cached_property
    def field(self) -> tuple[str, Field]:
        """What evaluations read of a sample: the name of the field, and what it is."""
        return modalities.evaluated(self.program.config, self.program.source.fields)

    def encode(self, batch: Mapping[str, jax.Array], output: str = "") -> jax.Array:
        """[B, ...], an output of the encoder ("": `evals.output`) for a batch on the devices.

        Of raw input what its modality makes of it, whatever the output.
        """
        if self.state is None:
            return modalities.raw(self.program.config, self.program.info.fields)(batch)
        return self._encode(self.state, batch, output or self.program.config.evals.output)

    def earlier(self) -> list[dict[str, Any]]:
        """What the run wrote of its steps so far, by `step`: "eval/<evaluator>/<metric>", ..."""
        path = self._workdir / METRICS if self._workdir else None
        if path is None or not path.exists() or self.state is None:
            return []
        return [row for row in read_metrics(path) if row["step"] < int(self.state.step)]

    def shape_of(self, source: Source, output: str) -> tuple[int, ...]:
        """The shape of an output of the encoder for a global batch of a source."""
        count = self.program.info.global_batch
        batch = {
            name: jax.ShapeDtypeStruct((count, *field.shape), field.dtype)
            for name, field in source.fields.items()
        }
        encode = lambda state, batch: self._encode(state, batch, output)
        return tuple(jax.eval_shape(encode, self.program.shapes, batch).shape)

    def batches(
        self, source: Source, *, limit: int = 0
    ) -> Iterator[tuple[Mapping[str, jax.Array], jax.Array]]:
        """(batch, valid [B]) of a source in its order, or of `limit` samples that `subset` chose.

        Every batch has the same size; `valid` is False on what pads the last.
        """
        config = self.program.config.evals
        return device_batches(
            source, batch_size=config.batch_size, mesh=self.program.mesh, limit=limit
        )

    def features(
        self,
        source: Source,
        *,
        limit: int = 0,
        output: str = "",
        change: Change | None = None,
    ) -> Features:
        """The features of a source, flattened to [N, D], on the host of every process.

        Args:
          source: samples of the run's shape.
          limit: how many of them (0: all), chosen by `subset`.
          output: of the encoder; "" is `evals.output`.
          change: of a batch on the devices before it is encoded, e.g. a corruption; jitted.

        Kept in the subject's folder under the hash of all that they depend on, unless changed.
        """
        path = None
        if self._folder is not None and change is None:
            path = self._folder / f"{self._identity(source, limit, output)}.npz"
            if path.exists():
                with np.load(path) as kept:
                    return Features(kept["x"], kept["y"], kept["index"])

        def encode(batch: Mapping[str, jax.Array]) -> jax.Array:
            x = self.encode(change(batch) if change else batch, output)
            return x.reshape(x.shape[0], -1)

        config, mesh = self.program.config.evals, self.program.mesh
        with jax.set_mesh(mesh):
            found = extract(encode, source, batch_size=config.batch_size, mesh=mesh, limit=limit)
        if path is not None and jax.process_index() == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}.part")
            with beside.open("wb") as file:
                np.savez(file, x=found.x, y=found.y, index=found.index)
            os.replace(beside, path)
        return found

    def outputs(self, source: Source, output: str, *, limit: int = 0) -> Features:
        """As `features`, in the shape of the output: x float32 [N, ...]."""
        found = self.features(source, limit=limit, output=output)
        shape = self.shape_of(source, output)[1:]
        return Features(found.x.reshape(len(found.x), *shape), found.y, found.index)

    def _identity(self, source: Source, limit: int, output: str) -> str:
        config = self.program.config
        parts: dict[str, Any] = {"kind": self.kind, "encoder": self.content, "limit": limit}
        parts |= {"output": output or config.evals.output, "which": config.evals.encoder}
        parts |= {"size": config.evals.size, "source": source.fingerprint}
        parts |= {"config": configs.fingerprint(configs.to_dict(config))}
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @functools.cached_property
    def content(self) -> str:
        """A hash of all that the encoder may read."""
        if self.state is None:
            return ""
        read = {name: getattr(self.state, name) for name in ("params", "teachers", "extra")}
        return content_hash(jax.tree.map(lambda x: to_host(_words(x)), read))


def encode_of(
    program: Program, name: str
) -> Callable[[State, Mapping[str, jax.Array], str], jax.Array]:
    """(state, batch, output) -> [B, ...] of one of the method's encoders, in evaluation mode."""
    read = program.method.readouts[name]

    def encode(state: State, batch: Mapping[str, jax.Array], output: str) -> jax.Array:
        found = read(program.context(state, batch))
        if output not in found:
            raise ConfigError(f"evals: the encoder gives no {output!r}{near(output, found)}")
        return found[output]

    return encode


def _words(x: Any) -> Any:
    """A random key as the numbers that it is; anything else as it is."""
    is_key = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def other_source(
    program: Program, evaluator: str, split: str, *, source: str, path: str, size: int = 0
) -> Source:
    """A split of another data set, stored as the run's own is.

    Args:
      program: of the run.
      evaluator: that asks, for error messages.
      split: "train" or "test".
      source, path: as of `data`.
      size: pixels of a side; 0 is the run's, where its images are squares.

    Raises:
      ConfigError: the data set cannot be opened.
    """
    _, field = modalities.evaluated(program.config, program.source.fields)
    *_, height, width, channels = field.shape
    fields = program.config.data.to_dict()
    # "As stored" is what the run's own set stores, and names of splits are its own, too.
    for own in ("train_split", "test_split", "ranges"):
        fields.pop(own, None)
    fields |= {"source": source, "path": path, "channels": channels}
    if size or height == width:
        fields["size"] = size or width
    try:
        return data.load(ConfigDict(fields), split)
    except ConfigError as error:
        raise ConfigError(f"evals.{evaluator}: {error}") from error
