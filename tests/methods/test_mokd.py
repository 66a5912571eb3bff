"""MOKD: its eight terms, who gets which gradient, its centers, optimizers and encoders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import experiments
from jaxssl import losses
from jaxssl.config.errors import ConfigError
from jaxssl.config.load import merged
from jaxssl.data.images import image_fields
from jaxssl.method import Context, Info
from jaxssl.methods import mokd, mokd_sides
from jaxssl.state import example_batch

B, K = 8, 12
INFO = Info(
    fields=image_fields((16, 16, 1)),
    num_samples=256,
    num_classes=10,
    steps=10,
    steps_per_epoch=32,
    global_batch=B,
)
KEY = jax.random.key(3)
NETWORKS = ("encoder", "projector", "prototypes", "search", "search_prototypes")


def config_of(**changes):
    small = {"train.global_batch": B}
    for name in "ab":
        small |= {f"student.{head}_{name}.count": K for head in ("prototypes", "search_prototypes")}
        small |= {f"student.search_{name}.width": 16}
    config = experiments.small("mokd", **small)
    with config.unlocked():
        for group in config.views.values():  # views that compile fast
            for name in set(group) - {"count", "size"}:
                del group[name]
            group.noise = dict(sigma=0.1)
        config.views.local.count = 3
        config.method_options.b.encoder.update(width=24, depth=1, heads=2)
        for name in "ab":
            config.method_options[name].cross_weight = ("piecewise", 0.0, (1, 1.0))
        config.method_options.b.cross_weight = ("piecewise", 0.0, (2, 0.5))
    return merged(experiments.without_batch_norm(config), changes)


@functools.cache
def pieces():
    """(method, params, seen, extra), with teachers and centers that have moved from the start."""
    method = mokd.build(config_of(), INFO)
    params, extra = jax.jit(method.init)(KEY, example_batch(INFO))
    moved = lambda x: x + 0.05 * jnp.sin(jnp.arange(x.size)).reshape(x.shape)
    seen = {
        n: jax.tree.map(moved, t.init(KEY, params, extra, {})) for n, t in method.teachers.items()
    }
    numbers = iter(range(6))
    extra["centers"] = jax.tree.map(
        lambda c: 0.1 * jnp.cos(next(numbers) + jnp.arange(K)), extra["centers"]
    )
    return method, params, seen, extra


def batch_of():
    pixels = np.random.default_rng(0).integers(0, 256, (B, 16, 16, 1), np.uint8)
    return {"index": jnp.arange(B), "image": jnp.asarray(pixels)}


@functools.cache
def compiled():
    method, _params, _seen, extra = pieces()

    def loss(params, seen, step):
        return method.losses["main"](Context(params, seen, extra, batch_of(), KEY, step))

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


@functools.cache
def value_and_grads(step):
    """At step 0 nothing crosses; from step 1 to a with weight 1; from step 2 to b with 0.5."""
    _, params, seen, _ = pieces()
    return compiled()(params, seen, jnp.int32(step))


def size(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def of_network(tree, name):
    return {n: tree[f"{n}_{name}"] for n in NETWORKS}


def test_the_terms_by_hand():
    _, params, seen, extra = pieces()
    sides = mokd_sides.make(config_of(), side_options(), INFO)
    plain, _ = sides["a"].blocks.plain(KEY, batch_of())
    wide, local = plain["global"]["x"], plain["local"]["x"]

    @functools.partial(jax.jit, static_argnums=0)
    def scores(name, net, image):
        """(pooled, tokens, scores, scores of the map) of one view."""
        own, heads = of_network(net, name), sides[name].networks.heads
        apply = lambda head, x: heads[head].module.apply({"params": own[head]}, x, train=False)
        y = sides[name].networks.encoder.apply({"params": own["encoder"]}, image, train=False)
        first = apply("prototypes", apply("projector", y["pooled"]))
        return (
            y["pooled"],
            y["tokens"],
            first,
            apply("search_prototypes", apply("search", y["tokens"])),
        )

    @functools.partial(jax.jit, static_argnums=0)
    def asked(name, tokens, asker_pooled):
        """What the other network's description of a view finds in a map of this teacher."""
        other, own = mokd_sides.OTHER[name], of_network(seen[name], name)
        asker = sides[other].networks.heads["search"].module
        variables = {"params": params[f"search_{other}"]}
        query = asker.apply(variables, asker_pooled, method="reduce")
        heads = sides[name].networks.heads
        found = heads["search"].module.apply(
            {"params": own["search"]}, tokens, train=False, query=query
        )
        return heads["search_prototypes"].module.apply(
            {"params": own["search_prototypes"]}, found, train=False
        )

    views = [wide[:, 0], wide[:, 1], *(local[:, v] for v in range(3))]
    student = {n: [scores(n, params, view) for view in views] for n in "ab"}
    teacher = {n: [scores(n, seen[n], view) for view in views[:2]] for n in "ab"}
    stack = lambda found, i: jnp.stack([outputs[i] for outputs in found])
    (value, aux), _ = value_and_grads(2)
    total = 0
    for name, other, weight in (("a", "b", 1.0), ("b", "a", 0.5)):
        centers = extra["centers"][name]
        dino = functools.partial(losses.dino, student_temperature=0.1, teacher_temperature=0.04)
        own, mapped = stack(student[name], 2), stack(student[name], 3)
        terms = {
            "self": dino(own, stack(teacher[name], 2), center=centers["self"]),
            "search": dino(mapped, stack(teacher[name], 3), center=centers["search"]),
            "cross": dino(own, stack(teacher[other], 2), center=centers["cross"]),
        }
        answers = [asked(other, teacher[other][0][1], view[0]) for view in student[name][2:]]
        terms["cross_search"] = losses.search_distillation(
            mapped[2:], jnp.stack(answers), student_temperature=0.1, teacher_temperature=0.04
        )
        for use, term in terms.items():
            np.testing.assert_allclose(aux.metrics[f"{name}_{use}"], term, rtol=1e-3, err_msg=use)
        total += terms["self"] + terms["search"] + weight * (terms["cross"] + terms["cross_search"])
        # A center follows the teacher whose scores it centres: the other's in the cross term.
        for use, who, i in (("self", name, 2), ("search", name, 3), ("cross", other, 2)):
            moved = 0.9 * centers[use] + 0.1 * stack(teacher[who], i).mean((0, 1))
            np.testing.assert_allclose(aux.extra["centers"][name][use], moved, atol=1e-4)
        assert 0 < float(aux.metrics[f"{name}_teacher_entropy"]) < np.log(K)
    np.testing.assert_allclose(value, total, rtol=1e-3)


def side_options():
    options = config_of().method_options
    return {n: {**mokd.SIDES[n], **options[n].to_dict()} for n in "ab"}


def test_a_network_learns_from_its_own_loss_alone():
    _, (apart, _) = value_and_grads(0)
    _, (to_a, _) = value_and_grads(1)
    _, (to_both, _) = value_and_grads(2)
    for step in (0, 1, 2):
        _, (grads, to_teachers) = value_and_grads(step)
        assert size(to_teachers) == 0
        assert all(size(leaves) > 0 for leaves in grads.values())
    same = lambda one, other, name: all(
        np.allclose(x, y, rtol=1e-4, atol=1e-5 * size(of_network(one, name)))
        for x, y in zip(
            jax.tree.leaves(of_network(one, name)), jax.tree.leaves(of_network(other, name))
        )
    )
    assert same(apart, to_a, "b") and not same(apart, to_a, "a")
    assert same(to_a, to_both, "a") and not same(to_a, to_both, "b")


def test_alone_each_network_is_the_sum_of_its_own_two_terms():
    (value, aux), _ = value_and_grads(0)
    own = sum(aux.metrics[f"{n}_{use}"] for n in "ab" for use in ("self", "search"))
    np.testing.assert_allclose(value, own, rtol=1e-5)


def test_each_network_has_its_own_optimizer():
    config = config_of(**{"optimizer.name": "sgd", "optimizer.learning_rate": 0.5})
    with config.unlocked():
        config.optimizer.update(momentum=0.0, weight_decay=0.0)
        config.method_options.b.optimizer = dict(learning_rate=0.25)
    method = mokd.build(config, INFO)
    _, params, _, _ = pieces()
    ones = jax.tree.map(jnp.ones_like, params)
    for name, rate in (("a", 0.5), ("b", 0.25)):
        tx, on = method.optimizers[name]
        assert set(on) == {f"{n}_{name}" for n in NETWORKS}
        part = {n: params[n] for n in on}
        updates, _ = tx.update({n: ones[n] for n in on}, tx.init(part), part, step=0)
        for leaf in jax.tree.leaves(updates):
            np.testing.assert_allclose(leaf, -rate, rtol=1e-6)


def test_encoders_of_both_students_and_both_teachers():
    method, params, seen, extra = pieces()
    pooled = {
        n: jax.jit(encode)(Context(params, seen, extra, batch_of(), KEY, 0))["pooled"]
        for n, encode in method.encoders.items()
    }
    assert {n: x.shape for n, x in pooled.items()} == {
        "a": (B, 16),
        "b": (B, 24),
        "teacher_a": (B, 16),
        "teacher_b": (B, 24),
    }
    for name in "ab":
        assert np.abs(pooled[name] - pooled[f"teacher_{name}"]).max() > 1e-3


def test_global_views_of_two_groups_are_those_of_one():
    config = config_of()
    with config.unlocked():
        one = config.views["global"].to_dict()
        del config.views["global"]
        config.views.first = config.views.second = dict(one, count=1)
    method = mokd.build(config, INFO)
    _, params, seen, extra = pieces()
    shape = lambda m: jax.eval_shape(
        m.losses["main"], Context(params, seen, extra, batch_of(), KEY, jnp.int32(0))
    )
    assert jax.tree.map(jnp.shape, shape(method)) == jax.tree.map(jnp.shape, shape(pieces()[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method_options.c": 1.0}, "method_options.c: unknown"),
        ({"method_options.a.cross_wieght": 1.0}, "method_options.a.cross_wieght .*cross_weight"),
        ({"method_options.b.encoder": dict(name="vitt")}, "method_options.b.encoder.name: .*'vit'"),
        (
            {"method_options.b.optimizer": dict(nam="sgd")},
            "method_options.b.optimizer.nam .*'name'",
        ),
        ({"student.search_a": None}, "student.search_a: missing"),
        ({"student.serch_a": dict(name="mlp", widths=(3,))}, "did you mean 'search_a'"),
        ({"student.search_a": dict(name="mlp", widths=(3,))}, "student.search_a.name: found 'mlp'"),
        ({"student.search_b.width": 8}, "student.search_b.width: found 8, expected 16"),
        ({"student.prototypes_b.count": 5}, r"scores of widths \(12, 5\), expected one width"),
        ({"teachers.b": None}, "teachers.b: missing"),
        ({"teachers.c": dict(rule="ema")}, "teachers.c: mokd has teachers a and b"),
        ({"teachers.b.follows": ("encoder_a",)}, "teachers.b.follows: found"),
        ({"views.local": None}, "views.local: missing"),
        ({"views.global.count": 1}, "expected 2 views not 'local'"),
        ({"views.third": dict(count=1, size=8)}, "differ in size"),
        ({"losses.koleo": dict(fn="koleo")}, "losses.koleo: mokd has its own terms"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        mokd.build(merged_open(changes), INFO)


def merged_open(changes):
    """`merged`, and entries that are new."""
    config = config_of()
    with config.unlocked():
        for key, value in changes.items():
            *parents, last = key.split(".")
            node = functools.reduce(lambda node, name: node[name], parents, config)
            if value is None:
                del node[last]
            else:
                node[last] = value
    return config
