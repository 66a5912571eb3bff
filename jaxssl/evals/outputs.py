"""Outputs of an encoder that an evaluator names, checked before anything is compiled."""

from collections.abc import Mapping

import jax

from jaxssl.config.errors import ConfigError, near

Shapes = Mapping[str, jax.ShapeDtypeStruct]


def shape_of(evaluator: str, output: str, outputs: Shapes) -> tuple[int, ...]:
    """The shape [B, ...] of the output that `evals.<evaluator>.output` names.

    Raises:
      ConfigError: the encoder has no such output.

    >>> shape_of("accuracy", "logits", {"logits": jax.ShapeDtypeStruct((8, 10), "float32")})
    (8, 10)
    """
    if output not in outputs:
        raise ConfigError(
            f"evals.{evaluator}.output: the encoder gives no {output!r}{near(output, outputs)}"
        )
    return tuple(outputs[output].shape)
