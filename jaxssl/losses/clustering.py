"""Terms that predict cluster assignments: balanced codes, and k-means as labels.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `sinkhorn`: codes whose rows sum to 1 | the transport plan, 1 / N times as much |
| `sinkhorn`: logarithms throughout | exp(scores / epsilon), which overflows for small epsilon |
| `swav`: mean over the pairs of a code and another view | the sum over pairs, G (V - 1) times |
| `swav`: unit rows of prototypes and embeddings come with the scores | normalised in the loss |
| `cluster_cross_entropy`: mean over heads | the sum over heads, H times as much |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.vectors import unit


def sinkhorn(scores: jax.Array, *, epsilon: float, iterations: int) -> jax.Array:
    """Soft assignments of samples to prototypes that use every prototype equally often.

    Q = diag(u) exp(S / epsilon) diag(v), by alternately scaling columns to N / K and rows to 1;
    the rows last. Cuturi, 2013, "Sinkhorn distances", arXiv 1306.0895, as in Caron et al., 2020,
    "Unsupervised learning of visual features by contrasting cluster assignments", arXiv 2006.09882.
    Codes are targets: no gradient to the scores.

    Args:
      scores: [N, K]; computed in float32.
      epsilon: entropy of the codes; small values give nearly one prototype a sample.
      iterations: of both scalings, at least 1.

    Returns:
      [N, K], float32: rows sum to 1, columns to about N / K.

    Raises:
      ConfigError: no iteration.

    >>> codes = sinkhorn(jnp.array([[0.3, 0.0], [0.2, 0.0]]), epsilon=0.05, iterations=3)
    >>> [round(float(q), 4) for q in codes[:, 0]]
    [0.7272, 0.2651]
    """
    chex.assert_rank(scores, 2)
    if iterations < 1:
        raise ConfigError(f"iterations: found {iterations}, expected at least 1")
    log_q = jax.lax.stop_gradient(scores).astype(jnp.float32) / epsilon
    for _ in range(iterations):
        log_q = log_q - jax.nn.logsumexp(log_q, axis=0, keepdims=True)
        log_q = log_q - jax.nn.logsumexp(log_q, axis=1, keepdims=True)
    return jnp.exp(log_q)


def swav(
    scores: jax.Array,
    *,
    num_global: int,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    past: jax.Array | None = None,
    use_past: float | jax.Array = 1.0,
) -> jax.Array:
    """Cross-entropy of every view's scores with the balanced codes of the other global views.

    L = (1 / G) sum_{a < G} 1 / (V - 1) sum_{v != a} mean_n -Q_a[n] . log softmax(S_v[n] / t), with
    Q_a = sinkhorn(S_a) without gradient. Caron et al., 2020, "Unsupervised learning of visual
    features by contrasting cluster assignments" (SwAV), arXiv 2006.09882. The scores are cosines:
    unit embeddings times unit prototypes.

    Args:
      scores: [V, B, K], global views first; computed in float32.
      num_global: G, from 1 to V; a code needs another view, so V is at least 2.
      temperature: t.
      epsilon, iterations: of `sinkhorn`.
      past: [G, n, K], scores of earlier embeddings of each global view: a batch that is small
        beside K is balanced together with them.
      use_past: 0 leaves `past` out; a number or a schedule.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: `num_global` outside 1..V, or a single view.

    >>> round(float(swav(jnp.ones((2, 3, 4)), num_global=2)), 4)  # log 4
    1.3863
    """
    chex.assert_rank(scores, 3)
    views, batch, prototypes = scores.shape
    if views < 2:
        raise ConfigError(f"scores: found {views} view, expected at least 2")
    if not 1 <= num_global <= views:
        raise ConfigError(f"num_global: found {num_global}, expected 1 to {views}, the views given")
    scores = scores.astype(jnp.float32)
    balanced = jax.vmap(lambda s: sinkhorn(s, epsilon=epsilon, iterations=iterations))
    now = jax.lax.stop_gradient(scores[:num_global])
    if past is None:
        codes = balanced(now)
    else:
        chex.assert_shape(past, (num_global, None, prototypes))
        longer = jnp.concatenate([now, jax.lax.stop_gradient(past).astype(jnp.float32)], 1)
        codes = jax.lax.cond(
            jnp.asarray(use_past) > 0,
            lambda: balanced(longer)[:, :batch],
            lambda: balanced(now),
        )
    return cross_views(codes, jax.nn.log_softmax(scores / temperature))


def cluster_cross_entropy(
    projections: jax.Array,
    *,
    clusters: tuple[jax.Array, jax.Array],
    temperature: float = 0.1,
) -> jax.Array:
    """Cross-entropy of every view with the sample's cluster, with the centroids as classifier.

    L = mean_{h, v, n} -log softmax(C_h z[v, n] / t)[y_h[n]] for unit z and H clusterings. The
    memory "clusters" makes them. Caron et al., 2020 (DeepCluster-v2, in the appendix of SwAV),
    arXiv 2006.09882, after Caron et al., 2018, "Deep clustering for unsupervised learning of
    visual features", arXiv 1807.05520. No gradient to the centroids.

    Args:
      projections: [V, B, P], normalised here; computed in float32.
      clusters: (unit centroids C [H, K, P], codes y [H, B] of integers).
      temperature: t.

    Returns:
      Scalar, float32.

    >>> z = jnp.eye(2)[None]
    >>> round(float(cluster_cross_entropy(
    ...     z, clusters=(jnp.eye(2)[None], jnp.array([[0, 1]])), temperature=1.0)), 4)
    0.3133
    """
    centroids, codes = clusters
    chex.assert_rank((projections, centroids, codes), (3, 3, 2))
    centroids = jax.lax.stop_gradient(centroids).astype(jnp.float32)
    z = unit(projections)
    scores = jnp.einsum("vbp,hkp->hvbk", z, centroids, precision=jax.lax.Precision.HIGHEST)
    logits = scores / temperature
    chosen = jnp.take_along_axis(logits, codes[:, None, :, None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()


def cross_views(targets: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """Mean over the pairs of a target view a and another view v of -mean_n p_a[n] . log q_v[n].

    Args:
      targets: [Vt, B, K], distributions; the views with the first Vt numbers.
      log_probabilities: [V, B, K].

    Returns:
      Scalar.
    """
    # A sum over K and then over the batch, and not a matrix product: that would round the codes
    # on devices whose products are of low precision.
    of_target = [-(target * log_probabilities).sum(-1).mean(-1) for target in targets]  # each [V]
    pairs = [
        values[v]
        for a, values in enumerate(of_target)
        for v in range(len(log_probabilities))
        if v != a
    ]
    return jnp.stack(pairs).mean()
