"""Losses of sequences of symbols whose places in time nobody says.

Where published forms differ, this one follows the first column:

| here | elsewhere |
|---|---|
| `ctc` of a transcript that does not fit is 0 | infinity (torch, by default); above 1e4 (optax) |
| one value a sample | the mean of them, or of each over its length |
"""

import chex
import jax
import jax.numpy as jnp
import optax


def ctc(
    logits: jax.Array,
    labels: jax.Array,
    logit_lengths: jax.Array,
    label_lengths: jax.Array,
    *,
    blank: int = 0,
) -> jax.Array:
    """Connectionist temporal classification: of all alignments that spell the transcript.

    L_n = -log sum over paths a with collapse(a) = y_n of prod_t softmax(l_n[t])[a_t]; collapsing
    merges repeats, then drops blanks. Graves et al., 2006, "Connectionist temporal classification:
    labelling unsegmented sequence data with recurrent neural networks". The recursion is
    `optax.ctc_loss`. A transcript fits where there are as many frames as symbols and as equal
    neighbours among them; one that does not has no path, loss 0 and no gradient.

    Args:
      logits: [B, T, V]; computed in float32.
      labels: integers [B, L], none of them `blank`.
      logit_lengths: integers [B], frames that count; what is beyond them is never read.
      label_lengths: integers [B], symbols that count, 0 for only blanks.
      blank: which of the V is none.

    Returns:
      [B], float32.

    >>> logits, one = jnp.zeros((1, 2, 2)), jnp.array([1])
    >>> round(float(ctc(logits, jnp.array([[1]]), 2 * one, one)[0]), 4)  # -log(3 / 4)
    0.2877
    """
    chex.assert_rank((logits, labels, logit_lengths, label_lengths), (3, 2, 1, 1))
    chex.assert_equal_shape_prefix((logits, labels, logit_lengths, label_lengths), 1)
    frames = jnp.arange(logits.shape[1]) < logit_lengths[:, None]
    symbols = jnp.arange(labels.shape[1]) < label_lengths[:, None]
    logits = jnp.where(frames[..., None], logits.astype(jnp.float32), 0.0)
    labels = jnp.where(symbols, labels, blank)
    equal = (labels[:, 1:] == labels[:, :-1]) & symbols[:, 1:]
    fits = label_lengths + equal.sum(-1) <= logit_lengths
    padding = ((~x).astype(jnp.float32) for x in (frames, symbols))
    frame_padding, symbol_padding = padding
    values = optax.ctc_loss(logits, frame_padding, labels, symbol_padding, blank_id=blank)
    return jnp.where(fits, values, 0.0)
