"""Masks of patches: exact counts, places that depend on the key alone, what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxssl import masks
from jaxssl.config.errors import ConfigError
from jaxssl.masks import MaskInput, Setting

PLAIN = Setting((14, 14), 100)
SMALL = Setting((4, 4), 100)


def given(batch=64, views=2, seed=0, step=0, seen=None):
    key = jax.random.key(seed)
    keys = jax.random.split(key, (batch, views))
    x = jnp.zeros((batch, views, 1, 1, 1))
    return MaskInput(x, keys, jax.random.fold_in(key, 1), jnp.int32(step), seen)


@functools.cache
def compiled(fields, setting):
    mask = masks.build(dict(fields), setting=setting, field="masks.hidden")
    return mask.fields, jax.jit(mask.hide)


def hide(fields, setting=PLAIN, **kwargs):
    names, fn = compiled(tuple(fields.items()), setting)
    found = fn(given(**kwargs))
    assert set(found) == set(names)
    return {name: np.asarray(value) for name, value in found.items()}


def counts(fields, **kwargs):
    return hide(fields, **kwargs)["mask"].sum(-1)


RANDOM = dict(name="random", how="replace")
BLOCK = dict(name="block")


@pytest.mark.parametrize(
    ("grid", "hidden"), [((14, 14), 147), ((14, 13), 137), ((4, 4), 12), ((2, 3, 4), 18)]
)
def test_a_quarter_is_kept_rounded_down(grid, hidden):
    """|M| = N - int(N / 4)."""
    found = hide(dict(name="random", ratio=0.75), Setting(grid, 1), batch=8)
    assert (found["mask"].sum(-1) == hidden).all()
    assert found["tokens"].shape == (8, 2, np.prod(grid) - hidden)


@pytest.mark.parametrize("name", ["random", "block"])
def test_tokens_are_the_patches_that_are_not_hidden_in_their_order(name):
    found = hide(dict(name=name, ratio=0.6, how="drop"), SMALL, batch=16)
    for mask, tokens in zip(found["mask"].reshape(-1, 16), found["tokens"].reshape(-1, 6)):
        np.testing.assert_array_equal(tokens, np.flatnonzero(~mask))


@pytest.mark.parametrize(("side", "hidden"), [(14, 30), (12, 22)])
def test_units_of_two_by_two_patches_are_rounded_up(side, hidden):
    """SimMIM: ceil(0.6 U) of the U units of 32 pixels, for patches of 16."""
    mask = hide(RANDOM | dict(ratio=0.6, unit=2), Setting((side, side), 1))["mask"]
    units = mask.reshape(64, 2, side // 2, 2, side // 2, 2)
    assert (units == units[:, :, :, :1, :, :1]).all()
    assert (units[:, :, :, 0, :, 0].sum((-1, -2)) == hidden).all()


def test_a_unit_as_long_as_a_clip_is_a_tube():
    mask = hide(RANDOM | dict(ratio=0.5, unit=(3, 1, 1)), Setting((3, 2, 4), 1))["mask"]
    frames = mask.reshape(64, 2, 3, 8)
    assert (frames == frames[:, :, :1]).all() and (frames.sum(-1) == 4).all()
    assert len(np.unique(frames[:, :, 0].reshape(-1, 8), axis=0)) > 10


@pytest.mark.parametrize(
    ("ratio", "hidden"), [(75 / 196, 75), (0.4, 78), (120 / 196, 120), (0.0, 0), (0.99, 194)]
)
def test_blocks_hide_an_exact_number(ratio, hidden):
    """Of BEiT, MaskFeat and data2vec, whatever rectangles are drawn."""
    assert (counts(BLOCK | dict(ratio=ratio)) == hidden).all()


def test_what_the_rectangles_leave_is_filled_at_random():
    assert (counts(BLOCK | dict(ratio=120 / 196, candidates=1)) == 120).all()


def neighbours(mask):
    """The mean number of hidden pairs side by side."""
    m = mask.reshape(-1, 14, 14)
    pairs = (m[:, 1:] & m[:, :-1]).sum((1, 2)) + (m[:, :, 1:] & m[:, :, :-1]).sum((1, 2))
    return pairs.mean()


def test_blocks_are_blocks():
    """Of 364 pairs, random patches hide a share of 0.38^2, about 53; blocks most of twice 75."""
    scattered = neighbours(hide(RANDOM | dict(ratio=75 / 196))["mask"])
    assert 45 < scattered < 62
    assert neighbours(hide(BLOCK | dict(ratio=75 / 196))["mask"]) > 105


def test_the_least_area_bounds_the_rectangles():
    square = hide(BLOCK | dict(ratio=36 / 196, least=36, aspect=1.0))["mask"].reshape(-1, 14, 14)
    sides = np.stack([square.any(1).sum(-1), square.any(2).sum(-1)])
    assert (sides == 6).all()  # all 36 are the first one


def test_each_view_draws_its_ratio_or_the_batch_one():
    fields = BLOCK | dict(ratio=(0.1, 0.5))
    own = counts(fields)
    assert own.min() >= 19 and own.max() <= 98 and len(np.unique(own)) > 30
    assert (own[:, 0] != own[:, 1]).any()
    shared = [np.unique(counts(fields | dict(per="batch"), seed=seed)) for seed in range(4)]
    assert all(len(found) == 1 for found in shared)
    assert len(np.unique(shared)) > 1


def test_a_view_is_masked_with_the_given_probability():
    fields = RANDOM | dict(ratio=0.5)
    found = counts(fields | dict(probability=0.5))
    assert set(np.unique(found)) == {0, 98}
    assert 0.35 < (found > 0).mean() < 0.65
    assert (counts(fields | dict(probability=0.0)) == 0).all()


def test_a_ratio_may_be_a_schedule():
    fields = RANDOM | dict(ratio=("linear", 0.0, 0.5))
    assert [int(counts(fields, step=step).max()) for step in (0, 50, 100)] == [0, 49, 98]


EVERY = {
    "random": RANDOM | dict(ratio=(0.2, 0.6)),
    "dropped": dict(name="random", ratio=0.75),
    "block": BLOCK | dict(ratio=(0.2, 0.6), probability=0.7),
    "multi_block": dict(name="multi_block"),
    "attention": dict(name="attention", teacher="ema", ratio=0.3, kind="hints"),
}


@pytest.mark.parametrize("name", EVERY)
def test_places_depend_on_the_key_of_the_sample_and_view_alone(name):
    """Neither on the rest of the batch nor on where in it a sample stands."""
    names, hidden = compiled(tuple(EVERY[name].items()), PLAIN)
    attention = np.float32(np.random.default_rng(0).random((8, 2, 1, 197, 197)))
    whole = given(batch=8, seen=attention)
    rows = np.array([5, 2, 3, 0, 0, 0, 0, 0])
    keys = jnp.concatenate([whole.keys[rows[:3]], given(batch=5, seed=7).keys])
    other = whole._replace(keys=keys, x=whole.x + 1, seen=attention[rows])
    here, there = hidden(whole), hidden(other)
    for field in names:
        np.testing.assert_array_equal(np.asarray(here[field])[rows[:3]], there[field][:3])
    assert (np.asarray(there["mask"])[3:] != np.asarray(here["mask"])[3:]).any()


@pytest.mark.parametrize(
    ("grid", "fields"),
    [((14, 14), {}), ((8, 8), {}), ((4, 9), dict(count=2))],
)
def test_targets_and_context_share_no_patch(grid, fields):
    """And have equal lengths in all views: K M + kept = T, however the blocks overlap."""
    total = grid[0] * grid[1]
    for seed in range(4):
        found = hide(dict(name="multi_block") | fields, Setting(grid, 1), seed=seed)
        targets, tokens = found["targets"], found["tokens"]
        count, size = targets.shape[2:]
        assert count * size + tokens.shape[-1] == total
        assert (np.diff(targets) > 0).all() and (np.diff(tokens) > 0).all()
        assert targets.min() >= 0 and max(targets.max(), tokens.max()) < total
        seen = np.zeros((64, 2, total), bool)
        np.put_along_axis(seen, tokens, True, -1)
        aimed = np.zeros((64, 2, total), bool)
        np.put_along_axis(aimed, targets.reshape(64, 2, -1), True, -1)
        assert not (seen & aimed).any()
        np.testing.assert_array_equal(found["mask"], aimed)


def test_target_blocks_are_rectangles_of_one_size_a_step():
    """One draw u gives s = .15 + .05 u and a = .75 + .75 u; M is the least area of any draw."""
    u = np.linspace(0, 1, 20_001)
    area = np.floor(196 * (0.15 + 0.05 * u))
    ratio = 0.75 + 0.75 * u
    tall, wide = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    sizes = {(int(h), int(w)) for h, w in zip(tall, wide)}
    drawn = set()
    for seed in range(8):
        targets = hide(dict(name="multi_block"), batch=16, seed=seed)["targets"].reshape(-1, 4, 30)
        assert targets.shape[-1] == (tall * wide).min()
        rows, columns = targets // 14, targets % 14
        width = np.unique(np.ptp(columns, axis=-1) + 1)
        assert len(width) == 1
        # Cut row by row to M patches, a rectangle may miss some of its last rows.
        height = -(-targets.shape[-1] // width[0])
        assert (np.ptp(rows, axis=-1) + 1 == height).all()
        fitting = {size for size in sizes if size[1] == width[0] and size[0] >= height}
        assert fitting
        drawn.add(int(width[0]))
        corners = {tuple(corner) for corner in np.stack([rows[..., 0], columns[..., 0]], -1)[:, 0]}
        assert len(corners) > 5
    assert len(drawn) > 1


def test_a_context_that_fits_lies_in_its_block():
    """Where two targets leave more of the block than is kept, nothing else is seen."""
    fields = dict(name="multi_block", count=6, context=(0.85, 0.85))
    found = hide(fields)
    rows, columns = found["tokens"] // 14, found["tokens"] % 14
    side = round(np.sqrt(int(0.85 * 196)))
    free = (~found["mask"]).reshape(-1, 14, 14)
    windows = [
        free[:, i : i + side, j : j + side].sum((1, 2))
        for i in range(15 - side)
        for j in range(15 - side)
    ]
    enough = (np.min(windows, 0) >= found["tokens"].shape[-1]).reshape(64, 2)
    assert enough.any()
    assert (np.ptp(rows, axis=-1)[enough] < side).all()
    assert (np.ptp(columns, axis=-1)[enough] < side).all()


def attention_of(scores, heads=1):
    """[1, 1, H, 1 + T, 1 + T] whose class row has `scores` at the patches; the rest is noise."""
    scores = np.asarray(scores, np.float32)
    size = 1 + scores.shape[-1]
    seen = np.float32(np.random.default_rng(1).random((1, 1, heads, size, size)))
    seen[0, 0, :, 0, 1:] = scores
    return seen


def attended(scores, setting, **fields):
    heads = 1 if np.ndim(scores) == 1 else len(scores)
    seen = attention_of(scores, heads)
    fields = dict(name="attention", teacher="ema") | fields
    return hide(fields, setting, batch=1, views=1, seen=seen)["mask"][0, 0]


def test_high_and_low_attention_by_hand():
    setting, scores = Setting((2, 2), 1), [0.1, 0.4, 0.2, 0.3]
    high = attended(scores, setting, ratio=0.5, kind="high")
    low = attended(scores, setting, ratio=0.5, kind="low")
    assert (set(np.flatnonzero(high)), set(np.flatnonzero(low))) == ({1, 3}, {0, 2})


def test_attention_is_the_mean_over_heads():
    heads = [[0.9, 0.0, 0.4, 0.0], [0.0, 0.2, 0.6, 0.1]]  # means .45, .1, .5, .05
    mask = attended(heads, Setting((2, 2), 1), ratio=0.25)
    assert set(np.flatnonzero(mask)) == {2}


def test_hints_reveal_some_of_the_most_attended():
    """N = 196, r = .3, s = .1: 58 hidden, 5 of the top 19 revealed."""
    scores = np.random.default_rng(0).random(196)
    order = np.argsort(-scores)
    high = attended(scores, PLAIN, ratio=0.3)
    assert set(np.flatnonzero(high)) == set(order[:58])
    hints = attended(scores, PLAIN, ratio=0.3, kind="hints", shown=0.1)
    assert hints.sum() == 53
    revealed = set(order[:58]) - set(np.flatnonzero(hints))
    assert len(revealed) == 5 and revealed <= set(order[:19])


def test_permuting_the_patches_permutes_the_mask():
    scores = np.random.default_rng(0).random(196)
    order = np.random.default_rng(1).permutation(196)
    for kind in ("high", "low"):
        mask = attended(scores, PLAIN, ratio=0.3, kind=kind)
        np.testing.assert_array_equal(
            attended(scores[order], PLAIN, ratio=0.3, kind=kind), mask[order]
        )


def test_the_batch_draws_one_ratio_and_some_views_stay_whole():
    fields = dict(name="attention", teacher="ema", ratio=(0.1, 0.5), probability=0.5)
    found = counts(
        fields, seen=np.float32(np.random.default_rng(0).random((64, 2, 2, 17, 17))), setting=SMALL
    )
    empty, number = np.unique(found)
    assert empty == 0 and 1 <= number <= 8
    assert 0.35 < (found > 0).mean() < 0.65


def test_no_gradient_reaches_the_attention():
    mask = masks.build(
        dict(name="attention", teacher="ema", ratio=0.5), setting=SMALL, field="masks.hidden"
    )
    seen = jnp.asarray(np.random.default_rng(0).random((2, 1, 2, 17, 17)), jnp.float32)

    def loss(seen):
        hidden = mask.hide(given(2, 1, seen=seen))["mask"]
        return (hidden * seen[:, :, 0, 0, 1:]).sum()

    direct = jax.grad(loss)(seen)
    assert np.count_nonzero(direct) == 2 * 8  # through the sum alone, once for each hidden patch
    with pytest.raises(ConfigError, match="a teacher with a class token"):
        mask.hide(given(2, 1, seen=seen[..., 1:, 1:]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(name="randon", ratio=0.5), r"masks\.hidden\.name: found 'randon'.*'random'"),
        (dict(name="random"), r"masks\.hidden\.ratio: missing"),
        (dict(name="random", ratoi=0.5), r"masks\.hidden\.ratoi: .*'ratio'"),
        (dict(name="random", ratio=1.0), r"masks\.hidden\.ratio: found 1\.0"),
        (dict(name="random", ratio=-0.1), r"masks\.hidden\.ratio: found -0\.1"),
        (dict(name="random", ratio=(0.5, 0.2), how="replace"), r"hidden\.ratio: found \(0\.5, 0"),
        (dict(name="random", ratio=0.5, how="hide"), r"masks\.hidden\.how: found 'hide'"),
        (dict(name="random", ratio=(0.1, 0.5)), r"masks\.hidden\.how: 'drop' needs one fixed"),
        (dict(name="random", ratio=0.5, probability=0.5), r"masks\.hidden\.how: 'drop' needs"),
        (dict(name="random", ratio=0.5, unit=3), r"masks\.hidden\.unit: found 3"),
        (dict(name="block", ratio=0.5, per="sample"), r"masks\.hidden\.per: found 'sample'"),
        (dict(name="block", ratio=0.5, probability=2.0), r"hidden\.probability: found 2\.0"),
        (dict(name="block", ratio=0.5, aspect=0.0), r"masks\.hidden\.aspect: found 0\.0"),
        (dict(name="block", ratio=0.5, least=0), r"masks\.hidden\.least: found 0"),
        (dict(name="multi_block", count=0), r"masks\.hidden\.count: found 0"),
        (dict(name="multi_block", count=7), r"masks\.hidden\.count: found 7 blocks of 30"),
        (dict(name="multi_block", scale=(0.2, 0.1)), r"masks\.hidden\.scale: found \(0\.2"),
        (dict(name="multi_block", aspect=(0.0, 1.0)), r"masks\.hidden\.aspect: found \(0\.0"),
        (dict(name="multi_block", context=(0.5, 1.5)), r"hidden\.context: found \(0\.5, 1\.5"),
        (dict(name="attention", teacher="ema", ratio=0.3, kind="hint"), r"hidden\.kind: .*'hints'"),
        (dict(name="attention", teacher="ema", ratio=0.3, shown=1.5), r"hidden\.shown: found 1\.5"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        masks.build(fields, setting=PLAIN, field="masks.hidden")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["random", "block", "multi_block", "attention"])
def test_an_encoder_without_patches_is_refused(name):
    fields = {"random": RANDOM | dict(ratio=0.5), "block": BLOCK | dict(ratio=0.5)}
    with pytest.raises(ConfigError, match="hides patches, and this encoder has none"):
        masks.build(fields.get(name, EVERY.get(name)), setting=Setting((), 1), field="masks.hidden")
