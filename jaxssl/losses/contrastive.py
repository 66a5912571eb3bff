"""Terms that tell an embedding's own sample from others: InfoNCE and what follows it.

Cosine similarities everywhere: inputs need not be of unit length, B is the global batch.

Where published forms differ, these follow the first column:

| here | elsewhere |
|---|---|
| `nt_xent`: the mean over 2 B anchors | the sum of the means of both views, twice as much |
| `moco_v3`: one direction, times 2 tau | without the factor; MoCo v3 sums two directions |
| `decoupled_contrastive`: the mean of both directions | their sum, twice as much |
| `nnclr`: one direction, neighbours are the anchors | the mean of both, as pairs "cross" give |
| `info_nce_queue`: negatives from the queue alone | the batch's other keys too |
| `instance_nce`: one draw of negatives for the batch | one for each sample: less variance |
| `instance_nce`: Z is the mean over banks of random directions | of the first batch's samples |
"""

import chex
import jax
import jax.numpy as jnp

from jaxssl.config.errors import ConfigError
from jaxssl.losses.vectors import unit

HIGHEST = jax.lax.Precision.HIGHEST
Number = float | jax.Array


def nt_xent(z1: jax.Array, z2: jax.Array, *, temperature: Number) -> jax.Array:
    """Normalised temperature-scaled cross-entropy: find the other view among all 2 B - 1 others.

    L = -1 / (2B) sum_i log [exp(h_i . h_p(i) / t) / sum_{k != i} exp(h_i . h_k / t)] over the unit
    embeddings h of both views, where p(i) is the other view of i. Chen et al., 2020, "A simple
    framework for contrastive learning of visual representations" (SimCLR), arXiv 2002.05709. The
    official code sums the means of the two views: twice this.

    Args:
      z1, z2: [B, P]; computed in float32.
      temperature: t.

    Returns:
      Scalar, float32.

    >>> round(float(nt_xent(jnp.eye(2), jnp.eye(2), temperature=0.5)), 4)  # log(1 + 2 exp(-2))
    0.2395
    """
    _check_pair(z1, z2)
    u1, u2 = unit(z1), unit(z2)
    batch = len(u1)
    h = jnp.concatenate([u1, u2])
    logits = jnp.where(jnp.eye(2 * batch, dtype=bool), -jnp.inf, _cosines(h, h) / temperature)
    positive = (u1 * u2).sum(-1) / temperature
    return jax.nn.logsumexp(logits, axis=-1).mean() - positive.mean()


def decoupled_contrastive(z1: jax.Array, z2: jax.Array, *, temperature: Number) -> jax.Array:
    """`nt_xent` whose denominator leaves the positive out, so that it no longer weakens negatives.

    L = 1 / (2B) sum_i [-h_i . h_p(i) / t + log sum_{k not in {i, p(i)}} exp(h_i . h_k / t)]. Yeh et
    al., 2022, "Decoupled contrastive learning" (DCL), arXiv 2110.06848. It has no lower bound at 0.

    Args:
      z1, z2: [B, P], of at least 2 samples; computed in float32.
      temperature: t.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: one sample, which has no negatives.

    >>> round(float(decoupled_contrastive(jnp.eye(2), jnp.eye(2), temperature=0.5)), 4)  # log 2 - 2
    -1.3069
    """
    _check_pair(z1, z2)
    batch = len(z1)
    if batch < 2:
        raise ConfigError(f"z1: found {batch} sample, expected at least 2")
    u1, u2 = unit(z1), unit(z2)
    h = jnp.concatenate([u1, u2])
    own = jnp.tile(jnp.eye(batch, dtype=bool), (2, 2))
    logits = jnp.where(own, -jnp.inf, _cosines(h, h) / temperature)
    positive = (u1 * u2).sum(-1) / temperature
    return jax.nn.logsumexp(logits, axis=-1).mean() - positive.mean()


def info_nce_queue(
    query: jax.Array, key: jax.Array, queue: jax.Array, *, temperature: Number
) -> jax.Array:
    """Cross-entropy of a query with its key against the keys of earlier steps.

    L = -mean_n log [exp(q_n . k_n / t) / (exp(q_n . k_n / t) + sum_j exp(q_n . c_j / t))]. He et
    al., 2020, "Momentum contrast for unsupervised visual representation learning" (MoCo), arXiv
    1911.05722. No gradient to key and queue. The memory "queue" with layout "columns" gives c.

    Args:
      query: q [B, P]; computed in float32.
      key: k [B, P], of a teacher.
      queue: c [P, K].
      temperature: t.

    Returns:
      Scalar, float32.

    >>> q = jnp.array([[1.0, 0.0]])
    >>> round(float(info_nce_queue(q, q, jnp.zeros((2, 3)) + q.T, temperature=1.0)), 4)  # log 4
    1.3863
    """
    _check_pair(query, key)
    chex.assert_shape(queue, (query.shape[1], None))
    key, queue = jax.lax.stop_gradient((key, queue))
    q = unit(query)
    positive = (q * unit(key)).sum(-1, keepdims=True)
    logits = jnp.concatenate([positive, _cosines(q, unit(queue.T))], axis=1) / temperature
    return (jax.nn.logsumexp(logits, axis=-1) - logits[:, 0]).mean()


def moco_v3(query: jax.Array, key: jax.Array, *, temperature: Number) -> jax.Array:
    """Cross-entropy of a query with its key among all keys of the batch, times 2 t.

    L = -2 t mean_n log [exp(q_n . k_n / t) / sum_m exp(q_n . k_m / t)]. Chen, Xie, He, 2021, "An
    empirical study of training self-supervised vision transformers" (MoCo v3), arXiv 2104.02057,
    which sums both directions: weight 2 where pairs are averaged. No gradient to the keys.

    Args:
      query: q [B, P]; computed in float32.
      key: k [B, P], of a teacher.
      temperature: t.

    Returns:
      Scalar, float32.

    >>> round(float(moco_v3(jnp.ones((2, 3)), jnp.ones((2, 3)), temperature=0.2)), 4)  # 0.4 log 2
    0.2773
    """
    _check_pair(query, key)
    logits = _cosines(unit(query), unit(jax.lax.stop_gradient(key))) / temperature
    return 2 * temperature * _own_row(logits)


def nnclr(neighbor: jax.Array, prediction: jax.Array, *, temperature: Number) -> jax.Array:
    """Cross-entropy of a neighbour with its sample's prediction among those of the batch.

    L = -mean_n log [exp(a_n . p_n / t) / sum_m exp(a_n . p_m / t)], where a_n is the nearest
    neighbour, among earlier embeddings, of one view and p_n the prediction from another. Dwibedi et
    al., 2021, "With a little help from my friends: nearest-neighbor contrastive learning of visual
    representations" (NNCLR), arXiv 2104.14548. No gradient to the neighbours. The memory "neighbor"
    as `target` gives a.

    Args:
      neighbor: a [B, P].
      prediction: p [B, P]; computed in float32.
      temperature: t.

    Returns:
      Scalar, float32.

    >>> round(float(nnclr(jnp.eye(2), jnp.eye(2), temperature=1.0)), 4)  # log(1 + exp(-1))
    0.3133
    """
    _check_pair(neighbor, prediction)
    return _own_row(_cosines(unit(jax.lax.stop_gradient(neighbor)), unit(prediction)) / temperature)


def relational_consistency(
    query: jax.Array,
    key: jax.Array,
    queue: jax.Array,
    *,
    student_temperature: Number,
    teacher_temperature: Number,
) -> jax.Array:
    """Cross-entropy of a student's similarities to a queue with a teacher's, which are sharper.

    L = -mean_n p_n . log softmax_j(q_n . c_j / t_s), p_n = softmax_j(k_n . c_j / t_t). Zheng et
    al., 2021, "ReSSL: relational self-supervised learning with weak augmentation", arXiv
    2107.09282. No gradient to key and queue. The memory "queue" gives c.

    Args:
      query: q [B, P], of a strongly augmented view; computed in float32.
      key: k [B, P], a teacher's, of a weakly augmented view.
      queue: c [K, P], keys of earlier steps.
      student_temperature, teacher_temperature: t_s > t_t.

    Returns:
      Scalar, float32.

    >>> q, c = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, -1.0]])
    >>> loss = relational_consistency(q, q, c, student_temperature=0.1, teacher_temperature=0.04)
    >>> round(float(loss), 4)  # log 2
    0.6931
    """
    _check_pair(query, key)
    chex.assert_shape(queue, (None, query.shape[1]))
    key, queue = jax.lax.stop_gradient((key, queue))
    c = unit(queue)
    target = jax.nn.softmax(_cosines(unit(key), c) / teacher_temperature)
    log_probabilities = jax.nn.log_softmax(_cosines(unit(query), c) / student_temperature)
    return -(target * log_probabilities).sum(-1).mean()


def instance_discrimination(
    z: jax.Array, bank: jax.Array, index: jax.Array, *, temperature: Number
) -> jax.Array:
    """Cross-entropy with the sample's own row in a bank of all samples' embeddings.

    L = -mean_n log [exp(M_i(n) . v_n / t) / sum_j exp(M_j . v_n / t)], the non-parametric softmax
    that `instance_nce` approximates. Wu et al., 2018, "Unsupervised feature learning via
    non-parametric instance discrimination", arXiv 1805.01978. No gradient to the bank. The memory
    "bank" gives M.

    Args:
      z: v [B, P]; computed in float32.
      bank: M [N, P].
      index: i [B], the samples' rows.
      temperature: t.

    Returns:
      Scalar, float32.

    >>> z, bank = jnp.array([[1.0, 0.0]]), jnp.eye(2)
    >>> round(float(instance_discrimination(z, bank, jnp.array([0]), temperature=1.0)), 4)
    0.3133
    """
    v, m = _check_bank(z, bank, index)
    logits = _cosines(v, m) / temperature
    positive = (v * m[index]).sum(-1) / temperature
    return (jax.nn.logsumexp(logits, axis=-1) - positive).mean()


def instance_nce(
    z: jax.Array,
    bank: jax.Array,
    index: jax.Array,
    *,
    temperature: Number,
    num_negatives: int,
    key: jax.Array,
) -> jax.Array:
    """Noise-contrastive estimation of `instance_discrimination`, with sampled negatives.

    L = -mean_n [log h(i(n), v_n) + sum_{j in J} log(1 - h(j, v_n))], h = P / (P + m / N),
    P(j | v) = exp(M_j . v / t) / Z, with J of m uniform draws, the same for the whole batch. Wu et
    al., 2018, "Unsupervised feature learning via non-parametric instance discrimination", arXiv
    1805.01978. There Z is a constant, estimated from the first batch and the bank as it starts;
    that bank holds random directions: this takes the expectation over them, `random_partition`.
    The paper's proximal term is not part of it. No gradient to the bank.

    Args:
      z: v [B, P]; computed in float32.
      bank: M [N, P].
      index: i [B], the samples' rows.
      temperature: t.
      num_negatives: m, at least 1.
      key: of the step.

    Returns:
      Scalar, float32.

    Raises:
      ConfigError: no negatives.
    """
    if num_negatives < 1:
        raise ConfigError(f"num_negatives: found {num_negatives}, expected at least 1")
    v, m = _check_bank(z, bank, index)
    rows, width = m.shape
    drawn = jax.random.randint(key, (num_negatives,), 0, rows)
    # log P - log(m / N): the logit of h.
    offset = jnp.log(rows / num_negatives) - jnp.log(random_partition(rows, width, temperature))
    positive = (v * m[index]).sum(-1) / temperature + offset
    negative = _cosines(v, m[drawn]) / temperature + offset
    return -(jax.nn.log_sigmoid(positive) + jax.nn.log_sigmoid(-negative).sum(-1)).mean()


def random_partition(rows: int, width: int, temperature: Number) -> jax.Array:
    """The expected sum_j exp(m_j . v / t) over N random directions m_j of R^P, v of unit length.

    Z = N sum_k (x / 2)^2k / (k! (P/2)_k), x = 1 / t: the Laplace transform of one coordinate of a
    uniform direction, a Bessel function.

    Args:
      rows: N.
      width: P.
      temperature: t.

    Returns:
      Scalar, float32; finite for t of at least about 0.02.

    >>> float(random_partition(10, 3, 1e6))
    10.0
    >>> round(float(random_partition(1, 3, 1.0)), 4)  # sinh(1)
    1.1752
    """
    k = jnp.arange(1, 256, dtype=jnp.float32)
    ratios = (0.5 / temperature) ** 2 / (k * (width / 2 + k - 1))
    return jnp.asarray(rows, jnp.float32) * (1 + jnp.cumprod(ratios).sum())


def _check_pair(a: jax.Array, b: jax.Array) -> None:
    chex.assert_rank((a, b), 2)
    chex.assert_equal_shape((a, b))


def _check_bank(z: jax.Array, bank: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unit rows of the embeddings and of the bank."""
    chex.assert_rank((z, bank, index), (2, 2, 1))
    chex.assert_equal_shape_suffix((z, bank), 1)
    chex.assert_equal_shape_prefix((z, index), 1)
    return unit(z), unit(jax.lax.stop_gradient(bank))


def _cosines(a: jax.Array, b: jax.Array) -> jax.Array:
    """[N, P], [M, P] of unit rows -> [N, M]."""
    return jnp.matmul(a, b.T, precision=HIGHEST)


def _own_row(logits: jax.Array) -> jax.Array:
    """Cross-entropy where row n's class is column n."""
    return (jax.nn.logsumexp(logits, axis=-1) - jnp.diagonal(logits)).mean()
