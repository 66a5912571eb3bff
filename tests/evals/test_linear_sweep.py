import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxssl.bench import evals as bench
from jaxssl.config.errors import ConfigError
from jaxssl.evals import protocol
from jaxssl.evals.features import Features, place, standardise
from jaxssl.evals.probes import linear_sweep

K = 3
SHORT = {"epochs": 4, "batch_size": 16, "rates": (0.001, 0.05, 0.5)}


def _banks(train=80, test=60, width=5):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(K, width))
    y = rng.integers(0, K, train + test).astype(np.int32)
    x = (means[y] + 1.2 * rng.normal(size=(train + test, width)) + 0.5).astype(np.float32)
    cut = lambda where: Features(x[where], y[where], np.arange(len(x))[where])
    return cut(slice(train)), cut(slice(train, None))


@pytest.fixture(scope="module")
def banks():
    return _banks()


def _probes(bank, rates, optimizer="sgd", weight_decay=0.1, epochs=4, batch_size=16):
    return linear_sweep.probes(
        place(bank),
        np.asarray(rates, np.float32),
        0,
        weight_decay,
        num_samples=len(bank.x),
        num_classes=K,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
    )


def _gradients(weight, bias, x, y):
    logits = x @ weight + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (p / p.sum(axis=1, keepdims=True) - np.eye(K)[y]) / len(x)
    return x.T @ error, error.sum(axis=0)


@pytest.mark.parametrize("optimizer", linear_sweep.OPTIMIZERS)
def test_every_probe_takes_the_steps_of_its_rate_down_to_zero_by_the_cosine(banks, optimizer):
    bank, rates, steps = standardise(*banks)[0], (0.03, 0.4), 6
    # One whole-bank minibatch an epoch: the permutation moves nothing but rounding.
    found = _probes(bank, rates, optimizer, epochs=steps, batch_size=1000)
    x, y = bank.x.astype(np.float64), bank.y
    for i, rate in enumerate(rates):
        params = [np.zeros((x.shape[1], K)), np.zeros(K)]
        first, second = ([np.zeros_like(p) for p in params] for _ in range(2))
        for t in range(steps):
            now = rate * (1 + np.cos(np.pi * t / steps)) / 2
            for j, g in enumerate(_gradients(*params, x, y)):
                if optimizer == "sgd":
                    first[j] = 0.9 * first[j] + g
                    step = first[j]
                else:
                    first[j] = 0.9 * first[j] + 0.1 * g
                    second[j] = 0.999 * second[j] + 0.001 * g**2
                    m, v = first[j] / (1 - 0.9 ** (t + 1)), second[j] / (1 - 0.999 ** (t + 1))
                    step = m / (np.sqrt(v) + 1e-8) + (0.1 * params[j] if j == 0 else 0)
                params[j] = params[j] - now * step
        np.testing.assert_allclose(found.weight[i], params[0], atol=2e-4)
        np.testing.assert_allclose(found.bias[i], params[1], atol=2e-4)


def test_a_probe_is_the_same_alone_and_beside_others(banks):
    together, alone = _probes(banks[0], (0.001, 0.05)), _probes(banks[0], (0.05,))
    np.testing.assert_allclose(together.weight[1], alone.weight[0], atol=1e-5)
    assert np.abs(together.weight[0] - together.weight[1]).max() > 0.01


def test_the_rate_is_chosen_on_a_held_out_fifth_and_never_on_the_test_set(banks):
    train, test = banks
    kept, held_out = linear_sweep.split(train, 0)
    assert (len(kept.x), len(held_out.x)) == (64, 16)
    assert sorted([*kept.index, *held_out.index]) == list(range(80))
    found = linear_sweep.evaluate(train, test, num_classes=K, **SHORT)

    scaled, queries = standardise(train, test)
    kept, held_out = linear_sweep.split(scaled, 0)
    models = _probes(kept, SHORT["rates"])
    answers = lambda bank: np.asarray(jax.vmap(lambda m: m.logits(bank.x))(models)).argmax(axis=-1)
    best = int((answers(held_out) == held_out.y).mean(axis=1).argmax())
    right = (answers(queries) == queries.y).mean(axis=1)
    assert found == pytest.approx({"accuracy": right[best], "rate": SHORT["rates"][best]})

    # Test labels for which the best probe is one of the worst: the choice must not see them.
    worst = Features(test.x, ((answers(queries)[best] + 1) % K).astype(np.int32), test.index)
    assert linear_sweep.evaluate(train, worst, num_classes=K, **SHORT) == {
        "accuracy": 0.0,
        "rate": found["rate"],
    }
    assert (answers(queries) == worst.y).mean(axis=1).max() > 0


def test_a_rate_that_diverges_is_not_chosen_and_all_that_do_are_an_error(banks):
    wild = {**SHORT, "rates": (1e38, 0.05)}
    found = linear_sweep.evaluate(*banks, num_classes=K, **wild)
    assert found["rate"] == 0.05 and found["accuracy"] > 0.5
    with pytest.raises(ConfigError, match=r"linear_sweep\.rates: found .*1e\+38"):
        linear_sweep.evaluate(*banks, num_classes=K, **{**wild, "rates": (1e38, 1.1e38)})


def test_eight_devices_give_the_numbers_of_one(banks):
    train, test = banks
    odd = Features(train.x[:77], train.y[:77], train.index[:77])  # padded on eight devices
    expected = _probes(odd, SHORT["rates"])
    score = lambda: linear_sweep.evaluate(train, test, num_classes=K, **SHORT)
    before = score()
    mesh = jax.make_mesh((2, 4, 1), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(
            _probes(odd, SHORT["rates"]).weight, expected.weight, rtol=1e-3, atol=1e-5
        )
        assert score() == pytest.approx(before, abs=0.017)  # rounding may move one sample of 60


def test_the_default_sweeps_twenty_rates_and_bad_fields_are_one_line(banks):
    rates = protocol.resolve("linear_sweep", {})["rates"]
    np.testing.assert_allclose(rates, 10 ** np.arange(-4, 1, 0.25), rtol=0.01)
    assert len(rates) == 20
    with pytest.raises(ConfigError, match=r"optimizer: found 'adam', .*did you mean 'adamw'\?"):
        linear_sweep.evaluate(*banks, num_classes=K, optimizer="adam")
    few = Features(banks[0].x[:4], banks[0].y[:4], banks[0].index[:4])
    with pytest.raises(ConfigError, match=r"evals\.bank: found 4 samples, expected at least 5"):
        linear_sweep.evaluate(few, banks[1], num_classes=K)


def test_the_benchmark_compares_equals():
    sizes = bench.Sizes(
        bank=96, queries=40, width=6, classes=3, rates=(0.01, 0.1, 0.2), epochs=1, batch_size=32
    )
    found = {m.name: m for m in bench.run(None, 2, sizes)}
    assert found["knn: difference of the accuracies"].median <= 1 / 40
    assert found["sweep: relative gap of the weights"].median < 1e-5
    for name in ("knn: scikit-learn over jaxssl", "sweep: 3 probes one by one over together"):
        assert len(found[name].values) == 2 and found[name].median > 0
