"""Evaluations of a run's encoder, each beside random init and raw input."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxssl import data, evals, modalities
from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError, near
from jaxssl.data import Part
from jaxssl.evals import protocol
from jaxssl.evals.diagnostics import rank as diagnostics
from jaxssl.evals.features import to_host
from jaxssl.evals.subject import KINDS, Subject, encode_of
from jaxssl.method import PRETEXT
from jaxssl.program import Program
from jaxssl.report import patches
from jaxssl.report.samples import Samples
from jaxssl.report.writers import read_json, write_json
from jaxssl.state import State
from jaxssl.step import make_ops

CONTROLS = "controls.json"
RANK_ROWS = 2048  # held-out samples whose features are measured as a set
Results = dict[str, dict[str, Any]]


class Evaluator:
    """One program's data, and what the evaluators of its config make of an encoder on them.

    Random init has its batch statistics settled on `evals.calibration_batches` training batches
    before it is counted: a fresh batch norm would make the control weaker than it is.

    Args:
      program: the run's program.
      workdir: where the controls, which never change in a run, are kept; None keeps nothing.
      keep_features: whether features are kept in the workdir, too, for later evaluations.

    Raises:
      ConfigError: an unknown evaluator, field, encoder or output; one that asks for more samples
        than the bank will hold.
    """

    def __init__(
        self, program: Program, workdir: pathlib.Path | None = None, keep_features: bool = False
    ):
        self.program = program
        self.config = program.config.evals
        evals.validate(self.config)
        settings = evals.settings(self.config)
        # Of the method's own task, which needs no labels.
        self._own = {
            name: fields
            for name, fields in settings.items()
            if hasattr(protocol.evaluator(name, fields), "measure")
            and PRETEXT in program.method.readouts
        }
        self._labelled = program.info.num_classes > 1
        judged = {n: protocol.evaluator(n, fields) for n, fields in settings.items()}
        judged = {n: m for n, m in judged.items() if not hasattr(m, "measure")}
        free = [n for n, m in judged.items() if not getattr(m, "NEEDS_LABELS", True)]
        self._judged = {n: settings[n] for n in (judged if self._labelled else free)}
        self.active = bool(self._judged)
        bank = min(self.config.bank or len(program.source), len(program.source))
        for name, fields in self._judged.items():
            protocol.check_bank(name, fields, bank)
        encoders = program.method.encoders
        self.encoder = self.config.encoder or next(iter(encoders))
        if self.encoder not in encoders:
            raise ConfigError(f"evals.encoder: no {self.encoder!r}{near(self.encoder, encoders)}")
        self._check_output()
        self._workdir = workdir
        self._folder = workdir / "features" if workdir and keep_features else None
        self._controls, self._made = self._kept_controls()
        self._last: Subject | None = None
        self._settled: Any = None  # the random start's `extra`
        self._encode = jax.jit(encode_of(program, self.encoder), static_argnames="output")
        held_out = self.active or bool(self._own)
        self._test = data.load(program.config.data, "test") if held_out else None

    @property
    def pieces(self) -> int:
        """How many pieces of work the next evaluation is."""
        return len(self._own) + len(self._judged) + (len(KINDS) - 1) * len(self._missing())

    def __call__(self, state: State, begins: Callable[[str], None] = lambda piece: None) -> Results:
        """{"knn/accuracy": {"trained": x, "random_init": y, "raw_input": z}, ...}.

        `begins` is told of every piece before it.
        """
        results: Results = {}
        for name, fields in self._own.items():
            begins(f"trained: {name}")
            measure = protocol.evaluator(name, fields).measure
            given = protocol.arguments(fields)
            results |= measure(self.program, state, self._test, **given)
        if not self.active:
            return results
        controls = self.controls(begins)
        self._last = self.subject("trained", state)
        found = self._run({"trained": self._last}, begins, self._judged)
        return {n: {**controls.get(n, {}), **values} for n, values in found.items()} | results

    def subject(self, kind: str, state: State | None) -> Subject:
        """`state`'s encoder, as evaluators see it; None is raw input."""
        assert self._test is not None
        return Subject(
            kind, self.program, state, self._test, self._encode, self._folder, self._workdir
        )

    def controls(self, begins: Callable[[str], None] = lambda piece: None) -> Results:
        """The same evaluations of random init and raw input; each made once for a workdir."""
        if missing := self._missing():
            random, raw = self._at_random(), self.subject("raw_input", None)
            found = self._run({"random_init": random, "raw_input": raw}, begins, missing)
            self._controls |= found
            self._made |= {name: _text(fields) for name, fields in missing.items()}
            if self._workdir and jax.process_index() == 0:
                kept = {"identity": self._identity(), "evaluators": self._made}
                write_json(self._workdir / CONTROLS, kept | {"results": self._controls})
        return self._controls

    def _missing(self) -> dict[str, dict[str, Any]]:
        """The evaluators whose controls were not made yet with their settings of today."""
        return {n: f for n, f in self._judged.items() if self._made.get(n) != _text(f)}

    def _kept_controls(self) -> tuple[Results, dict[str, str]]:
        """The results that the workdir has, and the settings of the evaluators that made them."""
        path = self._workdir / CONTROLS if self._workdir else None
        kept = read_json(path) if path and path.exists() else {}
        if kept.get("identity") != self._identity():
            return {}, {}
        return kept["results"], kept["evaluators"]

    def random_init(self, state: State | None = None) -> State:
        """The state at step 0, made anew unless given, with its batch statistics settled."""
        state = self.program.init() if state is None else state
        if not jax.tree.leaves(state.extra) or not self.config.calibration_batches:
            return state
        if self._settled is None:
            self._settled = self._extra_after_batches(state)
        return state.replace(extra=self._settled)

    def _extra_after_batches(self, state: State) -> Any:
        """`extra` (batch statistics) moved by training batches, while params stay."""
        method = self.program.method
        ops = make_ops(method, self.program.optimizers)
        loss = next(iter(method.losses))

        def extra_after(state: State, batch: Mapping[str, jax.Array]) -> Any:
            return ops.loss(state, batch, loss)[1].extra

        with jax.set_mesh(self.program.mesh):
            step = jax.jit(extra_after, out_shardings=self.program.shardings.extra)
            batches = self.program.batches(0)
            for i in range(self.config.calibration_batches):
                now = state.replace(step=np.int32(i))
                state = state.replace(extra=step(now, next(batches)))
        return state.extra

    def samples(self, state: State, count: int) -> Samples | None:
        """Held-out images and training images with the features of the last evaluation."""
        if self._test is None or not (self.active and self._labelled and count):
            return None
        last = self._last or self.subject("trained", state)
        train, test = last.train, last.test
        source, held_out = self.program.source, self._test
        show = modalities.show(self.program.config, self.program.info.fields)
        bank = np.sort(np.random.default_rng(0).permutation(len(train.x))[: 2 * count])
        some = np.sort(np.random.default_rng(1).permutation(len(test.x))[:count])
        return Samples(
            images=show(held_out.rows(test.index[some])),
            labels=test.y[some],
            features=test.x[some],
            bank_images=show(source.rows(train.index[bank])),
            bank_labels=train.y[bank],
            bank_features=train.x[bank],
            random_features=self._at_random().features(Part(source, train.index[bank])).x,
            label_names=source.label_names,
        )

    def pictures(self, state: State, count: int = 10) -> dict[str, tuple[Sequence[str], NDArray]]:
        """title -> (captions, uint8 [n, K, h, w, C]) of held-out samples."""
        program = self.program
        batch = max(stream.batch for stream in program.streams.values())
        found = self._maps(state, count)
        if self._test is None or batch > len(self._test):
            return found
        rows = next(program.batches(0, self._test))
        for title, read in program.method.pictures.items():

            def draw(state: State, rows: Any, read: Any = read) -> Any:
                images = read(program.context(state, rows))
                eight_bits = lambda x: jnp.round(255 * x[:count]).astype(jnp.uint8)
                return jax.tree.map(eight_bits, images)

            with jax.set_mesh(program.mesh):
                images = jax.tree.map(to_host, jax.jit(draw)(state, rows))
            found[title] = tuple(images), np.stack(list(images.values()), 1)
        return found

    def _maps(self, state: State, count: int) -> dict[str, tuple[Sequence[str], NDArray]]:
        """Held-out images beside the first components of their tokens."""
        if self._test is None or not self.active or "tokens" not in self._outputs:
            return {}
        trained = self.subject("trained", state)
        with jax.set_mesh(self.program.mesh):
            batch, _ = next(trained.batches(self._test, limit=count))
            shown = {"trained": trained, "random init": self._at_random()}
            tokens = {n: to_host(s.encode(batch, "tokens"))[:count] for n, s in shown.items()}
            show = modalities.show(self.program.config, self.program.info.fields)
            images = show({name: to_host(x)[:count] for name, x in batch.items()})
        made = patches.pictures(images, tokens)
        return {} if made is None else {patches.TITLE: made}

    def _at_random(self) -> Subject:
        """The random start; made anew, so that training shares its memory with no other state."""
        return self.subject("random_init", self.random_init())

    def protocols(self) -> dict[str, str]:
        """Evaluator -> its protocol id."""
        found = evals.settings(self.config)
        return {name: protocol.protocol_id(name, fields) for name, fields in found.items()}

    def _run(
        self,
        subjects: Mapping[str, Subject],
        begins: Callable[[str], None],
        evaluators: Mapping[str, Any],
    ) -> Results:
        with jax.set_mesh(self.program.mesh):
            results: Results = evals.run(evaluators, subjects, begins)
        for kind, subject in subjects.items():
            for name, value in diagnostics.rank(subject.test.x[:RANK_ROWS]).items():
                results.setdefault(f"features/{name}", {"better": None})[kind] = value
        return results

    def _check_output(self) -> None:
        program = self.program
        shapes, batch = program.shapes, program.evaluated_batch()
        with jax.set_mesh(program.mesh):
            encode = program.method.readouts[self.encoder]
            read = lambda state, batch: encode(program.context(state, batch))
            found = jax.eval_shape(read, shapes, batch)
        if self.config.output not in found:
            name = self.config.output
            raise ConfigError(f"evals.output: the encoder gives no {name!r}{near(name, found)}")
        self._outputs = tuple(found)
        kind = modalities.evaluated(program.config, program.info.fields)[1].kind
        for evaluator, fields in self._judged.items():
            module = protocol.evaluator(evaluator, fields)
            protocol.check_kind(evaluator, module, kind)
            if check := getattr(module, "check_config", None):
                check(program.config)
            if check := getattr(module, "check_outputs", None):
                check(found, program.info, **protocol.arguments(fields))

    def _identity(self) -> str:
        """What all controls depend on, as text."""
        c = self.program.config
        shared = {name: value for name, value in c.evals.items() if name in evals.LOOP}
        parts = {"config": configs.fingerprint(configs.to_dict(c)), "evals": shared}
        parts |= {"data": self.program.source.fingerprint}
        return _text(parts)


def _text(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, default=str)
