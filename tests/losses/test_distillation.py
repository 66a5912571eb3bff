"""Distillation over prototypes, and KoLeo: published values, invariants, devices, errors."""

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import losses
from jaxssl.config.errors import ConfigError


def normal(seed, *shape):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("name", ["dino", "ibot", "msn", "koleo"])
def test_golden(shared, name, case):
    golden.check(shared, name, case, getattr(losses, name))


def test_one_constant_on_teacher_and_center_changes_nothing():
    student, teacher, center = normal(0, 3, 8, 4), normal(1, 2, 8, 4), normal(2, 4)
    moved = losses.dino(student, teacher + center, center=center)
    plain = losses.dino(student, teacher, center=jnp.zeros(4))
    np.testing.assert_allclose(moved, plain, rtol=1e-5)


def test_dino_leaves_out_the_teachers_own_view():
    student, teacher = normal(0, 2, 8, 4), normal(1, 1, 8, 4)
    grad = jax.grad(lambda s: losses.dino(s, teacher, center=jnp.zeros(4)))(student)
    assert not np.any(grad[0]) and np.any(grad[1])


def test_ibot_counts_masked_patches_alone():
    scores, mask = normal(0, 4, 5, 6), np.zeros((4, 5), bool)
    mask[:2, :3] = True
    loss = lambda s, m: losses.ibot(s, scores, m, center=jnp.zeros(6))
    grad = jax.grad(loss)(scores + 1, mask)
    assert not np.any(grad[~mask]) and np.all(np.abs(grad[mask]).sum(-1) > 0)
    # Images without a mask add 0 and count in the mean.
    both = losses.ibot(scores[:2], scores[:2], mask[:2], center=jnp.zeros(6))
    np.testing.assert_allclose(loss(scores, mask), both / 2, rtol=1e-5)


balanced = jax.jit(lambda rows: losses.sinkhorn(rows, epsilon=0.04, iterations=3))


def masked_scores():
    mask = np.random.default_rng(5).random((8, 6)) < 0.4
    mask[3] = False  # an image without masked patches
    return normal(6, 8, 6, 4), normal(7, 8, 6, 4), mask


def test_sinkhorn_dino_balances_the_rows_of_all_teacher_views_together():
    student, teacher = normal(0, 3, 8, 4), normal(1, 2, 8, 4)
    codes = np.asarray(balanced(teacher.reshape(16, 4))).reshape(2, 8, 4)
    logs = np.asarray(jax.nn.log_softmax(student / 0.1))
    loss = jax.jit(jax.value_and_grad(losses.sinkhorn_dino, argnums=(0, 1)))
    value, grads = loss(student, teacher)
    pairs = [(a, v) for a in range(2) for v in range(3) if v != a]
    expected = np.mean([-(codes[a] * logs[v]).sum(-1).mean() for a, v in pairs])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.any(grads[0]) and not np.any(grads[1])


def test_sinkhorn_ibot_balances_the_masked_patches_of_the_batch():
    student, teacher, mask = masked_scores()
    codes = np.zeros_like(teacher)
    codes[mask] = balanced(teacher[mask])
    each = -(codes * np.asarray(jax.nn.log_softmax(student / 0.1))).sum(-1) * mask
    expected = (each.sum(1) / np.maximum(mask.sum(1), 1)).mean()
    np.testing.assert_allclose(
        jax.jit(losses.sinkhorn_ibot)(student, teacher, mask), expected, rtol=1e-5
    )


def test_sinkhorn_ibot_balances_the_masked_patches_of_all_views_together():
    stacks = [np.stack([x, x[::-1] * scale]) for x, scale in zip(masked_scores(), (2, 3, 1))]
    stacks[2][1, 0] = False  # views with masks of their own
    student, teacher, mask = stacks
    fn = jax.jit(losses.sinkhorn_ibot)
    merged = [x.reshape(-1, *x.shape[2:]) for x in stacks]
    np.testing.assert_allclose(fn(*stacks), fn(*merged), rtol=1e-6)
    apart = np.mean([fn(*view) for view in zip(*stacks)])
    assert abs(fn(*stacks) / apart - 1) > 1e-3
    none = fn(student, teacher, mask & False)
    assert none == 0


def test_sinkhorn_ibot_counts_masked_patches_alone():
    student, teacher, mask = masked_scores()
    value_and_grads = jax.jit(jax.value_and_grad(losses.sinkhorn_ibot, argnums=(0, 1)))
    value, (grad, to_teacher) = value_and_grads(student, teacher, mask)
    assert not np.any(grad[~mask]) and np.all(np.abs(grad[mask]).sum(-1) > 0)
    assert not np.any(to_teacher)
    other = np.where(mask[..., None], teacher, np.inf)
    assert value_and_grads(student, other, mask)[0] == value
    none, grads = value_and_grads(student, teacher, mask & False)
    assert none == 0 and not np.any(grads[0])


def test_balanced_codes_undo_what_all_rows_prefer():
    _, teacher, mask = masked_scores()
    student = np.broadcast_to(np.float32([0.1, 0, 0, 0]), teacher.shape)  # likes the first one
    preferred = teacher + np.float32([3, 0, 0, 0])
    soft = dict(teacher_temperature=1.0)
    balanced = jax.jit(lambda g: losses.sinkhorn_ibot(student, g, mask, **soft))
    np.testing.assert_allclose(balanced(preferred), balanced(teacher), rtol=1e-4)
    centered = jax.jit(lambda g: losses.ibot(student, g, mask, center=jnp.zeros(4), **soft))
    assert abs(centered(preferred) / centered(teacher) - 1) > 0.1


def test_msn_sharpens_its_targets():
    q = np.eye(2, dtype=np.float32)
    # The angle at which softmax of the two cosines is [.6, .4]; sharpened, [.835052, .164948].
    angle = np.arccos(np.log(1.5) / np.sqrt(2)) - np.pi / 4
    z = np.float32([[np.cos(angle), np.sin(angle)]])
    value = losses.msn(z, z, q, temperature=1.0, iterations=0, entropy_weight=0.0)
    expected = -(0.835052 * np.log(0.6) + 0.164948 * np.log(0.4))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_msn_entropy_is_lost_where_all_anchors_share_a_prototype():
    q = np.eye(2, dtype=np.float32)
    fields = dict(temperature=0.01, iterations=0)

    def lost(z):
        without = losses.msn(z, z, q, entropy_weight=0.0, **fields)
        return float(losses.msn(z, z, q, entropy_weight=1.0, **fields) - without)

    assert lost(q) == pytest.approx(0, abs=1e-6)
    assert lost(q[[0, 0]]) == pytest.approx(np.log(2), rel=1e-5)


def test_msn_of_stacked_views_is_that_of_rows():
    anchors, targets, q = normal(0, 3, 8, 4), normal(1, 1, 8, 4), normal(2, 6, 4)
    np.testing.assert_allclose(
        losses.msn(anchors, targets, q),
        losses.msn(anchors.reshape(24, 4), targets[0], q),
        rtol=1e-6,
    )


def test_koleo_does_not_know_the_order_and_survives_equal_samples():
    z = normal(0, 12, 4)
    shuffled = np.random.default_rng(1).permutation(z)
    np.testing.assert_allclose(losses.koleo(shuffled), losses.koleo(z), rtol=1e-5)
    z[3] = z[7]
    value, grad = jax.value_and_grad(losses.koleo)(z)
    assert np.isfinite(grad).all() and float(value) > losses.koleo(shuffled)
    assert np.isfinite(jax.grad(losses.koleo)(np.zeros((4, 3), np.float32))).all()


def test_koleo_descends_to_a_wider_spread():
    start = z = losses.clustering.unit(jnp.asarray(normal(0, 8, 2)))
    nearest = lambda z: np.sort(1 - np.asarray(z @ z.T), 1)[:, 1].min()
    step = jax.jit(lambda z: losses.clustering.unit(z - 0.02 * jax.grad(losses.koleo)(z)))
    for _ in range(50):
        z = step(z)
    assert nearest(z) > 2 * nearest(start)


def test_devices():
    student, teacher, center = normal(0, 3, 16, 8), normal(1, 2, 16, 8), normal(2, 8)
    dino = lambda s, t, c: losses.dino(s, t, center=c)
    golden.check_devices(dino, [student, teacher, center], [1, 1, None])
    golden.check_devices(losses.msn, [student, teacher[:1], normal(3, 6, 8)], [1, 1, None])
    golden.check_devices(losses.koleo, [normal(4, 32, 8)], [0])
    mask = np.random.default_rng(5).random((16, 6)) < 0.5
    ibot = lambda s, t, c, m: losses.ibot(s, t, m, center=c)
    scores = [normal(6, 16, 6, 8), normal(7, 16, 6, 8)]
    golden.check_devices(ibot, [*scores, center, mask], [0] * 4)
    golden.check_devices(losses.sinkhorn_ibot, [*scores, mask], [0] * 3)
    stacks = [np.stack([x, 2 * x[::-1]]) for x in scores] + [np.stack([mask, mask[::-1]])]
    golden.check_devices(losses.sinkhorn_ibot, stacks, [1] * 3)
    golden.check_devices(losses.sinkhorn_dino, [student, teacher], [1, 1])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: losses.dino(jnp.ones((1, 4, 2)), jnp.ones((2, 4, 2)), center=jnp.ones(2)), "tea"),
        (lambda: losses.dino(jnp.ones((1, 4, 2)), jnp.ones((1, 4, 2)), center=jnp.ones(2)), "stu"),
        (lambda: losses.msn(jnp.ones((2, 4, 2)), jnp.ones((2, 4, 2)), jnp.ones((3, 2))), "targets"),
        (lambda: losses.msn(jnp.ones((5, 2)), jnp.ones((4, 2)), jnp.ones((3, 2))), "anchors"),
        (lambda: losses.koleo(jnp.ones((1, 2))), "z: found 1 sample"),
        (lambda: losses.sinkhorn_dino(jnp.ones((1, 4, 2)), jnp.ones((1, 4, 2))), "student: found"),
        (lambda: losses.sinkhorn_dino(*[jnp.ones((2, 4, 2))] * 2, iterations=0), "iterations"),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(ConfigError, match=text) as error:
        call()
    assert "expected" in str(error.value) and "\n" not in str(error.value)
