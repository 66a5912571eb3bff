"""Linear probes trained by SGD at many learning rates at once, one of them chosen without the test
set."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxssl.config.errors import ConfigError, near
from jaxssl.evals.features import DeviceFeatures, Features, place, replicate, standardise, to_host
from jaxssl.evals.probes.logistic import Linear

# Four a decade, 1e-4 ... 5.62, written out to three digits: the protocol id hashes them.
RATES = tuple(float(f"{10 ** (power / 4):.3g}") for power in range(-16, 4))
OPTIMIZERS = ("sgd", "adamw")
HELD_OUT = 5  # one part in this many of the bank chooses the rate

PROTOCOL: dict[str, Any] = {
    "rates": RATES,
    "optimizer": "sgd",
    "epochs": 100,
    "batch_size": 256,
    "weight_decay": 0.01,
    "seed": 0,
}
BETTER = {"rate": None}


def evaluate(
    train: Features,
    test: Features,
    *,
    num_classes: int,
    rates: tuple[float, ...] = RATES,
    optimizer: str = "sgd",
    epochs: int = 100,
    batch_size: int = 256,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> dict[str, float]:
    """Test accuracy of the probe whose learning rate is the best on a held-out fifth of the bank.

    Features go through `features.standardise`. Probes learn on the other four fifths, all rates in
    one program; the test set is read once, by the chosen probe. Training several probes at once
    follows Oquab et al. (2023), DINOv2: Learning robust visual features without supervision, arXiv
    2304.07193, except that there the evaluation set itself chooses the rate.

    Args:
      train: x [N, D], its statistics standardise both banks.
      test: only scored, and only by the chosen probe.
      num_classes: K.
      rates: peak learning rates; of equally good ones the first is chosen.
      optimizer, epochs, batch_size, weight_decay, seed: as of `probes`; the seed also splits.

    Returns:
      {"accuracy": fraction of the test samples, 0 ... 1; "rate": the chosen learning rate}.

    Raises:
      ConfigError: an unknown optimizer, a bank of fewer than 5 samples, or every rate diverged.
    """
    if optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"evals.linear_sweep.optimizer: found {optimizer!r}, expected one of "
            f"{', '.join(OPTIMIZERS)}{near(optimizer, OPTIMIZERS)}"
        )
    if len(train.x) < HELD_OUT:
        raise ConfigError(
            f"evals.bank: found {len(train.x)} samples, expected at least {HELD_OUT} for "
            f"linear_sweep to hold out a part"
        )
    train, test = standardise(train, test)
    learned, held_out = split(train, seed)
    models = probes(
        place(learned),
        replicate(np.asarray(rates, np.float32)),
        seed,
        weight_decay,
        num_samples=len(learned.x),
        num_classes=num_classes,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
    )
    scores = to_host(_correct(models, replicate(np.arange(len(rates))), place(held_out)))
    best = int(np.argmax(scores))
    if scores[best] < 0:
        raise ConfigError(
            f"evals.linear_sweep.rates: found {rates}, expected one at which the probe converges"
        )
    correct = to_host(_correct(models, replicate(np.asarray([best])), place(test)))
    return {"accuracy": float(correct[0]) / len(test.x), "rate": float(rates[best])}


def split(bank: Features, seed: int) -> tuple[Features, Features]:
    """Four fifths of a bank and the other fifth, at random by the seed, whatever the features."""
    order = np.random.default_rng(seed).permutation(len(bank.x))
    cut = len(bank.x) // HELD_OUT
    kept, held_out = (
        Features(bank.x[rows], bank.y[rows], bank.index[rows])
        for rows in (np.sort(order[cut:]), np.sort(order[:cut]))
    )
    return kept, held_out


@functools.partial(
    jax.jit, static_argnames=("num_samples", "num_classes", "optimizer", "epochs", "batch_size")
)
def probes(
    bank: DeviceFeatures,
    rates: jax.Array,
    seed: jax.Array | int,
    weight_decay: jax.Array | float,
    *,
    num_samples: int,
    num_classes: int,
    optimizer: str,
    epochs: int,
    batch_size: int,
) -> Linear:
    """Softmax regressions trained from zero, one for each rate, on the same minibatches.

        g = grad mean_b CE(y_b, softmax(x_b W + b)),   u <- 0.9 u + g,
        (W, b) <- (W, b) - rate (1 + cos(pi t / S)) / 2 u,      t = 0 ... S - 1

    for "sgd"; "adamw" takes Adam's step with decoupled decay of W (Loshchilov, Hutter (2019),
    Decoupled weight decay regularization, arXiv 1711.05101) under the same cosine. An epoch is a
    permutation of the bank, cut to whole minibatches.

    Args:
      bank: x [N, D], on the devices.
      rates: [R], peak learning rates.
      seed: of the permutations.
      weight_decay: of AdamW; SGD has none.
      num_samples: N without padding.
      num_classes: K.
      optimizer: one of OPTIMIZERS.
      epochs: passes over the bank.
      batch_size: B, at most N of it.

    Returns:
      weight [R, D, K], bias [R, K].
    """
    size = min(batch_size, num_samples)
    steps = num_samples // size
    decay = optax.cosine_decay_schedule(1.0, epochs * steps)
    key = jax.random.key(seed)

    def loss(model: Linear, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.losses.softmax_cross_entropy_with_integer_labels(model.logits(x), y).mean()

    def fit(rate: jax.Array) -> Linear:
        schedule = lambda step: rate * decay(step)
        if optimizer == "sgd":
            tx = optax.sgd(schedule, momentum=0.9)
        else:
            tx = optax.adamw(schedule, weight_decay=weight_decay, mask=_is_weight)

        def step(carry: tuple[Linear, Any], rows: jax.Array) -> tuple[tuple[Linear, Any], None]:
            model, state = carry
            grad = jax.grad(loss)(model, bank.x[rows], bank.y[rows])
            updates, state = tx.update(grad, state, model)
            return (optax.apply_updates(model, updates), state), None

        def epoch(carry: tuple[Linear, Any], number: jax.Array) -> tuple[tuple[Linear, Any], None]:
            order = jax.random.permutation(jax.random.fold_in(key, number), num_samples)
            return jax.lax.scan(step, carry, order[: steps * size].reshape(steps, size))

        start = Linear(jnp.zeros((bank.x.shape[1], num_classes)), jnp.zeros(num_classes))
        return jax.lax.scan(epoch, (start, tx.init(start)), jnp.arange(epochs))[0][0]

    # Rows and permutations do not depend on the rate: they are made once for all.
    return jax.vmap(fit)(rates)


def _is_weight(model: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim == 2, model)


@jax.jit
def _correct(models: Linear, which: jax.Array, bank: DeviceFeatures) -> jax.Array:
    """How many samples each of the probes at `which` gets right; -1 for one that diverged."""

    def score(i: jax.Array) -> jax.Array:
        model = jax.tree.map(lambda leaf: leaf[i], models)
        logits = model.logits(bank.x)
        right = jnp.sum(bank.weight * (jnp.argmax(logits, axis=-1) == bank.y))
        return jnp.where(jnp.isfinite(logits).all(), right, -1.0)

    return jax.lax.map(score, which)  # one at a time: [N, K] logits, not [R, N, K]
