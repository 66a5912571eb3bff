"""Boxes: how far two overlap, and which predicted box is whose."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxssl.config.errors import ConfigError


class Matched(NamedTuple):
    """The query of each object, int32 [B, M], -1 for none, and the cost of each pair [B, Q, M]."""

    query: jax.Array
    cost: jax.Array


def giou(boxes1: jax.Array, boxes2: jax.Array) -> jax.Array:
    """Generalised intersection over union of all pairs of boxes.

    GIoU = I / U - (H - U) / H, I the intersection's area, U the union's, H that of the smallest box
    around both. Rezatofighi et al., 2019, "Generalized intersection over union", arXiv 1902.09630.
    Without an epsilon; a quotient of empty boxes is 0.

    Args:
      boxes1: [N, 4], corners (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1; computed in float32.
      boxes2: [M, 4].

    Returns:
      float32 [N, M], from -1 to 1.

    >>> boxes = jnp.array([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0]])
    >>> [round(float(x), 4) for x in giou(boxes[:1], boxes)[0]]
    [1.0, -0.3333]
    """
    chex.assert_shape((boxes1, boxes2), (None, 4))
    a = jnp.asarray(boxes1, jnp.float32)[:, None]
    b = jnp.asarray(boxes2, jnp.float32)[None]
    area = lambda low, high: jnp.maximum(high - low, 0).prod(-1)
    over = lambda top, bottom: jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1), 0.0)
    (low, high), (low2, high2) = (jnp.split(x, 2, axis=-1) for x in (a, b))
    shared = area(jnp.maximum(low, low2), jnp.minimum(high, high2))
    union = area(low, high) + area(low2, high2) - shared
    hull = area(jnp.minimum(low, low2), jnp.maximum(high, high2))
    return over(shared, union) - over(hull - union, hull)


def box_matching(
    logits: jax.Array,
    boxes: jax.Array,
    labels: jax.Array,
    target_boxes: jax.Array,
    valid: jax.Array,
    *,
    class_weight: float = 1.0,
    box_weight: float = 5.0,
    giou_weight: float = 2.0,
) -> Matched:
    """The assignment of queries to objects that costs least: each object has a query of its own.

    cost[q, m] = b |x_q - y_m|_1 - c softmax(l_q)[label_m] - g GIoU(x_q, y_m), over centre-size
    boxes; the Hungarian algorithm (`optax`) finds the least sum. Carion et al., 2020, "End-to-end
    object detection with transformers" (DETR), arXiv 2005.12872. No gradient.

    Args:
      logits: l [B, Q, K]; computed in float32.
      boxes: x [B, Q, 4], (centre x, centre y, width, height).
      labels: integers [B, M], M at most Q.
      target_boxes: y [B, M, 4].
      valid: bool [B, M], true where there is an object.
      class_weight, box_weight, giou_weight: c, b and g.

    Returns:
      (query of each object, -1 where there is none; cost, 0 there).

    Raises:
      ConfigError: more objects than queries.

    >>> boxes = jnp.array([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]])
    >>> found = box_matching(jnp.zeros((1, 2, 3)), boxes, jnp.array([[0, 0]]), boxes[:, ::-1],
    ...                      jnp.array([[True, False]]))
    >>> found.query.tolist()
    [[1, -1]]
    """
    chex.assert_rank((logits, boxes, labels, target_boxes, valid), (3, 3, 2, 3, 2))
    (batch, queries, _), objects = logits.shape, labels.shape[1]
    chex.assert_shape((boxes, target_boxes), ((batch, queries, 4), (batch, objects, 4)))
    chex.assert_shape((labels, valid), (batch, objects))
    if objects > queries:
        raise ConfigError(f"labels: found {objects} objects, expected at most {queries} queries")
    l, x, y = (
        jax.lax.stop_gradient(jnp.asarray(a, jnp.float32)) for a in (logits, boxes, target_boxes)
    )
    likely = jnp.take_along_axis(jax.nn.softmax(l), jnp.asarray(labels)[:, None], axis=-1)
    apart = jnp.abs(x[:, :, None] - y[:, None]).sum(-1)
    overlap = jax.vmap(giou)(_corners(x), _corners(y))
    cost = box_weight * apart - class_weight * likely - giou_weight * overlap
    # What is no object costs the same everywhere: it takes a query that the others leave.
    cost = jnp.where(jnp.asarray(valid)[:, None], cost, 0.0)

    def assigned(cost: jax.Array) -> jax.Array:
        objects_of, queries_of = optax.assignment.hungarian_algorithm(cost.T)
        return jnp.zeros(objects, jnp.int32).at[objects_of].set(queries_of.astype(jnp.int32))

    return Matched(jnp.where(jnp.asarray(valid), jax.vmap(assigned)(cost), -1), cost)


def _corners(boxes: jax.Array) -> jax.Array:
    centre, size = jnp.split(boxes, 2, axis=-1)
    return jnp.concatenate([centre - size / 2, centre + size / 2], -1)
