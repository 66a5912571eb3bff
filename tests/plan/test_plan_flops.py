"""FLOPs of traced programs against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxssl.plan.flops import count, taps


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_a_product_costs_two_for_each_multiplication():
    assert count(jnp.dot, shape(2, 3), shape(3, 5)).model == 2 * 2 * 3 * 5


def test_vmap_costs_as_much_as_a_loop():
    batched = jax.vmap(jnp.dot, in_axes=(0, None))
    assert count(batched, shape(7, 2, 3), shape(3, 5)).model == 7 * 2 * 2 * 3 * 5


def test_a_gradient_costs_two_products_for_each_of_the_forward_pass():
    loss = lambda w, x: jnp.sum((x @ w) ** 2)
    forward = 2 * 4 * 3 * 5
    assert count(loss, shape(3, 5), shape(4, 3)).model == forward
    assert count(jax.grad(loss), shape(3, 5), shape(4, 3)).model == 2 * forward
    assert count(jax.grad(loss, (0, 1)), shape(3, 5), shape(4, 3)).model == 3 * forward


def test_a_scan_counts_each_turn():
    fn = lambda ws, x: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0]
    assert count(fn, shape(6, 4, 4), shape(2, 4)).model == 6 * 2 * 2 * 4 * 4


@pytest.mark.parametrize("scanned", [False, True])
def test_recomputation_is_counted_apart(scanned):
    """Of two products the second is not needed again: the gradient reads its inputs alone."""
    block = lambda x, w: jnp.tanh(x @ w[0]) @ w[1]
    weights, x, layers = (shape(4, 8), shape(8, 4)), shape(2, 4), 1
    one = 2 * 2 * 4 * 8
    if scanned:
        layers = 5
        weights = (shape(layers, 4, 8), shape(layers, 8, 4))
        body = lambda x, w: (jax.checkpoint(block, prevent_cse=False)(x, w), None)
        loss = lambda w, x: jnp.sum(jax.lax.scan(body, x, w)[0] ** 2)
    else:
        loss = lambda w, x: jnp.sum(jax.checkpoint(block)(x, w) ** 2)
    found = count(jax.grad(loss, (0, 1)), weights, x)
    assert found.model == layers * 6 * one
    assert found.recomputed == layers * one


def test_a_condition_counts_its_dearest_branch():
    cheap, dear = lambda x: x, lambda x: x @ x @ x
    fn = lambda flag, x: jax.lax.cond(flag, cheap, dear, x)
    assert count(fn, jax.ShapeDtypeStruct((), bool), shape(3, 3)).model == 2 * 2 * 27


def test_platforms_with_a_form_of_their_own_do_not_count():
    cheap, dear = lambda x: x @ x, lambda x: x @ x @ x
    fn = lambda x: jax.lax.platform_dependent(x, cpu=dear, default=cheap)
    assert count(fn, shape(3, 3)).model == 2 * 27


def test_what_cannot_be_counted_is_named():
    endless = lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ x, x)
    found = count(endless, shape(3, 3))
    assert found.model == 2 * 27 and found.uncounted == {"while, one turn counted": 1}
    assert count(jnp.linalg.cholesky, shape(3, 3)).uncounted == {"cholesky": 1}


def test_what_nothing_reads_is_not_counted():
    assert count(lambda x: (x @ x, x.sum())[1], shape(3, 3)).model == 0


def convolution(x, w, stride, padding, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def test_a_convolution_counts_pairs_of_a_weight_and_a_pixel():
    fn = lambda x, w: convolution(x, w, 2, "VALID")
    assert count(fn, shape(2, 9, 9, 3), shape(3, 3, 3, 8)).model == 2 * 2 * 4 * 4 * 8 * 9 * 3


def test_padding_costs_nothing():
    fn = lambda x, w: convolution(x, w, 1, "SAME")
    inside = (3 * 5 - 2) ** 2  # of 3 x 5 pairs along each axis, those at both ends are padding
    assert count(fn, shape(1, 5, 5, 2), shape(3, 3, 2, 4)).model == 2 * inside * 2 * 4


def test_groups_divide_the_work():
    fn = lambda x, w: convolution(x, w, 1, "VALID", groups=4)
    assert count(fn, shape(1, 3, 3, 8), shape(3, 3, 2, 8)).model == 2 * 8 * 9 * 2


def test_gradients_of_a_strided_convolution_cost_the_same_as_it():
    """Zeros between the pixels of the transposed one are no work."""
    loss = lambda x, w: jnp.sum(convolution(x, w, 2, "SAME"))
    args = shape(2, 8, 8, 3), shape(3, 3, 3, 4)
    forward = count(loss, *args).model
    assert forward > 0
    # The sum is linear: only the gradients' two products are left.
    assert count(jax.grad(loss, (0, 1)), *args).model == 2 * forward


def test_taps_of_a_dilated_input():
    assert taps(size=3, kernel=2, out=4, dilation=2) == 4
