"""Split prediction: the pixels of one half of a view are predicted from the other half.

Lee, Lei, Saunshi, Zhuo, 2021, "Predicting what you already know helps: provable self-supervised
learning", arXiv 2008.01064. With x1 one half of a view and x2 the other,

  L = mean |x2 - g(x1)|^2,    whose minimum is at g(x1) = E[x2 | x1]

g is `config.encoder` on x1 and then the head `student.predictor`, an MLP, on its "pooled" output.
Where the halves are independent given the class, E[class | x1] is a linear function of the *output*
E[x2 | x1]; that of the layer before it is nowhere promised. Evaluations may read both, by
`evals.output`: "prediction" [B, P] and "pooled" [B, D]; each is of the half x1 alone.

Fields of `config.method_options`:
  context: the half that is seen: "top", "bottom", "left" or "right".
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxssl import encoders, heads, losses, modalities
from jaxssl.config.by_name import check_choice
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.naming import fold_name
from jaxssl.method import PRETEXT, Aux, Batch, Context, Info, Method, PyTree
from jaxssl.methods import halves, toolkit
from jaxssl.methods.composed.networks import DTYPES, Head, Networks
from jaxssl.state import example_batch

OPTIONS: Mapping[str, Any] = {"context": "top"}
HALF = "half"


def build(config: Any, info: Info) -> Method:
    """The `Method` of a split-prediction config.

    Raises:
      ConfigError: naming the first field that does not fit.
    """
    context = toolkit.options(config, OPTIONS)["context"]
    check_choice("method_options.context", context, halves.HALVES)
    toolkit.unread(config, "losses", "masks", "targets", "teachers")
    group = halves.only_group(config)
    make = modalities.build(config.views, info.fields, config.data)

    def parts(key: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The seen halves [B, V, h, w, C], and the hidden ones as rows [B, V, P]."""
        whole = make(fold_name(key, "views"), batch)[group]
        hidden = halves.cut(whole, halves.opposite(context))
        return halves.cut(whole, context), hidden.reshape(*hidden.shape[:2], -1)

    evaluated = halves.evaluated(config, info, context)
    _, hidden = jax.eval_shape(parts, jax.random.key(0), example_batch(info))
    networks = _networks(config, hidden.shape[-1])

    def predicted(
        params: PyTree, extra: PyTree, batch: Batch, key: jax.Array, train: bool
    ) -> tuple[jax.Array, jax.Array, PyTree]:
        x, hidden = parts(key, batch)
        stats = extra["batch_stats"]["student"]
        block = {HALF: {"x": x}}
        found, stats = networks.outputs(params, stats, block, ("prediction",), train)
        return found["prediction"][HALF], hidden, stats

    def init(key: jax.Array, batch: Batch) -> tuple[PyTree, PyTree]:
        params, stats = networks.init(key, parts(key, batch)[0][:, 0])
        return params, {"batch_stats": {"student": stats}}

    def loss(context: Context) -> tuple[jax.Array, Aux]:
        params, _, extra, batch, key, _ = context
        prediction, hidden, stats = predicted(params, extra, batch, key, train=True)
        after = jax.lax.stop_gradient({"student": stats})
        return losses.split_error(prediction, hidden), Aux({**extra, "batch_stats": after}, {})

    def pretext(context: Context) -> dict[str, jax.Array]:
        params, _, extra, batch, key, _ = context
        prediction, hidden, _ = predicted(params, extra, batch, key, train=False)
        constant = jnp.broadcast_to(hidden.mean((0, 1)), hidden.shape)
        errors = [losses.split_error(guess, hidden) for guess in (prediction, constant)]
        return {"hidden": jnp.stack(errors)}

    def encode(context: Context) -> Mapping[str, jax.Array]:
        params, _, extra, batch, *_ = context
        x = evaluated(batch)
        stats, block = extra["batch_stats"]["student"], {HALF: {"x": x[:, None]}}
        # Those that evaluate a batch in one piece need not be a multiple of the microbatches.
        whole = networks._replace(microbatches=1)
        names = ("pooled", "tokens", "prediction")
        found, _ = whole.outputs(params, stats, block, names, train=False)
        return {name: found[name][HALF][:, 0] for name in names}

    if config.train.microbatches > 1:
        _, extra = jax.eval_shape(init, jax.random.key(0), example_batch(info))
        toolkit.microbatches(config, tuple(extra["batch_stats"]["student"]))
    return Method(init, {"main": loss}, {"student": encode, PRETEXT: pretext})


def _networks(config: Any, numbers: int) -> Networks:
    for name in config.student:
        if name != "predictor":
            raise ConfigError(f"student.{name}: no such head{near(name, ('predictor',))}")
    if "predictor" not in config.student:
        raise ConfigError("student.predictor: missing; expected an 'mlp' with hidden widths")
    fields = config.student.predictor.to_dict()
    if fields.get("name") != "mlp":
        raise ConfigError(f"student.predictor.name: found {fields.get('name')!r}, expected 'mlp'")
    # The data decides the last width: as many numbers as are hidden.
    fields["widths"] = (*fields.get("widths", ()), numbers)
    dtype = DTYPES[config.train.precision]
    predictor = heads.build(fields, dtype=dtype, field="student.predictor")
    encoder = encoders.build(config.encoder.to_dict(), dtype=dtype)
    head = Head(predictor, "pooled", "prediction")
    return Networks(encoder, {"predictor": head}, "all", config.train.microbatches)
