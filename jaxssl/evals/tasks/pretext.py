"""The error of what a method predicts, on held-out samples, beside that of the best constant.

A reconstruction or a class that a student learned to predict is worth its cost only where the error
is well below that of a predictor that sees nothing: one vector, the same for every sample and
place, chosen on the very batches that it is judged on. Less is better.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.source import Source
from jaxssl.method import PRETEXT
from jaxssl.program import Program
from jaxssl.state import State
from jaxssl.step import make_ops

PROTOCOL = {"batches": 4, "terms": ()}


def measure(
    program: Program, state: State, source: Source, *, batches: int, terms: tuple[str, ...] = ()
) -> dict[str, dict[str, Any]]:
    """ "pretext/<term>" -> {"trained": error, "constant": error, "better": "lower"}.

    Networks are in evaluation mode; views and masks are drawn as in training, the same for every
    state. The constant's error is that of each batch's best one
    (`jaxssl.methods.composed.terms.constant`).

    Args:
      program: of the run; its method names its pretexts.
      state: the trained one.
      source: held-out samples, at least a batch of them.
      batches: how many batches are averaged.
      terms: of the loss, which the method has read; () are those that predict something hidden.

    Raises:
      ConfigError: too few held-out samples.
    """
    del terms
    method, batch = program.method, max(s.batch for s in program.streams.values())
    context = make_ops(method, program.optimizers).context
    if batch > len(source):
        raise ConfigError(
            f"evals.pretext: {len(source)} held-out samples do not fill a batch of {batch}; "
            "expected evals.pretext=None"
        )
    rows = program.batches(0, source)

    @jax.jit
    def errors(state: State, batch: Mapping[str, jax.Array], number: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(0), number)
        return method.readouts[PRETEXT](context(state, batch, key))

    with jax.set_mesh(program.mesh):
        found = [
            jax.tree.map(np.asarray, errors(state, next(rows), np.uint32(i)))
            for i in range(batches)
        ]
    mean = lambda term, i: float(np.mean([batch[term][i] for batch in found]))
    return {
        f"pretext/{term}": {"trained": mean(term, 0), "constant": mean(term, 1), "better": "lower"}
        for term in found[0]
    }
