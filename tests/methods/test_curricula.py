"""Runs in stages that go on from one another: rising resolutions, tasks in turn."""

import itertools

import image_views
import jax
import numpy as np
import pytest

import experiments
from jaxssl import optim
from jaxssl.config.errors import ConfigError
from jaxssl.modalities.image import frequency
from jaxssl.program import Program
from jaxssl.run import rehearsal, stages


def plan_of(name, preset="digits", *overrides):
    return experiments.plan(experiments.load(name, preset, *overrides))


def rates_of(plan):
    """The learning rate of every step, stage after stage."""
    rates = []
    for stage in plan:
        steps = stage.config.train.steps
        rate = jax.vmap(optim.learning_rate_at(stage.config.optimizer, steps))
        rates.append(np.asarray(rate(np.arange(steps))))
    return rates


EFFICIENT = {
    "digits": (600, (8, 8, 12, 16)),
    "cifar10": (2800, (16, 16, 24, 32)),
    "imagenet1k_resnet50": (312_000, (160, 160, 160, 192, 224)),
}


@pytest.mark.parametrize("preset", EFFICIENT)
def test_a_curriculum_has_the_steps_and_the_schedule_of_its_control(preset):
    plan, (control,) = (
        plan_of("efficienttrain", preset, *override) for override in ((), ("--config.stages=()",))
    )
    steps, sides = EFFICIENT[preset]
    assert [frequency.side(stage.config.views["global"]) for stage in plan] == list(sides)
    assert sum(stage.config.train.steps for stage in plan) == steps == control.config.train.steps
    assert len({stage.config.train.steps for stage in plan}) == 1
    assert frequency.side(control.config.views["global"]) == sides[-1]
    # Every stage goes on with all that there is; the views of the last are the control's.
    for before, stage in itertools.pairwise(plan):
        assert (stage.init_from, stage.take) == (before.name, stages.TAKEN)
    assert plan[-1].config.views.to_dict() == control.config.views.to_dict()
    assert len({stage.config.train.seed for stage in plan}) == len(plan)
    (whole,) = rates_of([control])
    np.testing.assert_allclose(np.concatenate(rates_of(plan)), whole, rtol=1e-5, atol=1e-9)


def test_the_curriculum_of_224_pixels_costs_two_thirds():
    plan = plan_of("efficienttrain", "imagenet1k_resnet50")
    sides = [frequency.side(stage.config.views["global"]) for stage in plan]
    assert np.mean(np.square(sides)) / 224**2 == pytest.approx(0.653061, abs=1e-6)


def test_augmentation_grows_linearly_to_its_full_strength():
    plan = plan_of("efficienttrain", "imagenet1k_resnet50")
    found = [stage.config.views["global"] for stage in plan]
    for field, full in dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2).items():
        strengths = [view.jitter[field] for view in found]
        np.testing.assert_allclose(strengths, full * np.array([1, 3, 5, 7, 9]) / 9)
    assert {view.jitter.probability for view in found} == {0.8}


def test_a_fault_that_only_the_last_loss_shows_is_found_before_the_first_stage():
    config = experiments.small("efficienttrain")
    *earlier, last = config.stages
    larger = {**last["changes"], "views.global.low_frequency": dict(size=18)}
    with config.unlocked():
        config.stages = (*earlier, {**last, "changes": larger})
    with pytest.raises(ConfigError, match=r"low_frequency\.size: found 18") as caught:
        rehearsal.rehearsed(experiments.plan(config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preset, steps, peak", [("digits", 600, 2e-3), ("cifar10", 1400, 3e-3)])
def test_the_rate_never_rises_again(preset, steps, peak):
    plan = plan_of("mae_infinite_lr", preset)
    by_name = {stage.name: stage for stage in plan}
    assert {name: stage.init_from for name, stage in by_name.items()} == {
        "constant1": "",
        "anneal1": "constant1",
        "constant2": "constant1",  # not from the annealed model
        "anneal2": "constant2",
        "forget": "anneal2",
    }
    assert all(by_name[name].take == stages.TAKEN for name in ("anneal1", "constant2", "anneal2"))
    constant1, anneal1, constant2, anneal2 = rates_of(plan[:-1])
    assert len(constant1) + len(anneal1) == len(constant2) + len(anneal2) == steps
    hold = len(constant1)
    assert hold == 4 * steps // 5
    assert constant1[steps // 20] == pytest.approx(peak)
    assert constant1[: steps // 20].max() < peak
    np.testing.assert_allclose(constant1[steps // 2 :], peak / 2, rtol=1e-5)
    np.testing.assert_allclose(constant2, peak / 2, rtol=1e-5)
    for anneal in (anneal1, anneal2):  # half-way it is the geometric mean
        assert anneal[0] == pytest.approx(peak / 2, rel=1e-5)
        assert anneal[len(anneal) // 2] == pytest.approx(peak * np.sqrt(0.5 * 0.1), rel=1e-4)
        assert (np.diff(anneal) < 0).all()


@pytest.mark.parametrize("preset", ["digits", "cifar10"])
def test_the_control_repeats_warm_up_and_cosine(preset):
    plan, control = (
        plan_of("mae_infinite_lr", preset),
        plan_of("mae_infinite_lr", f"{preset}_cosine"),
    )
    assert [stage.init_from for stage in control] == ["", "task1", "task2"]
    assert control[1].take == stages.TAKEN
    first, second = rates_of(control[:2])
    np.testing.assert_array_equal(first, second)
    infinite = np.concatenate(rates_of(plan[:2]))
    assert len(first) == len(infinite) and first.max() == pytest.approx(infinite.max())
    assert first[-1] == pytest.approx(0.1 * first.max(), rel=1e-2)
    # The sets are the same, and what is evaluated last is the first.
    for ours, theirs in ((plan[0], control[0]), (plan[3], control[1]), (plan[4], control[2])):
        assert ours.config.data.to_dict() == theirs.config.data.to_dict()
        assert ours.config.views.to_dict() == theirs.config.views.to_dict()
    sets = [(s.config.data.to_dict(), s.config.views.to_dict()) for s in plan]
    assert sets[0] == sets[1] == sets[4] != sets[2] == sets[3]
    assert plan[4].evaluates_only and control[2].evaluates_only


def test_the_sets_in_turn_fit_one_another():
    config = experiments.small("mae_infinite_lr")
    shapes = rehearsal.rehearsed(experiments.plan(config))
    assert list(shapes) == [entry["name"] for entry in config.stages]


def test_the_second_digits_are_negatives_that_are_evaluated_as_they_are():
    plan = plan_of("mae_infinite_lr")
    assert plan[2].config.views["global"].solarize.to_dict() == dict(probability=1.0, threshold=0.0)
    images = {}
    for place in (0, 2):
        view = dict(count=1, size=16)
        kept = plan[place].config.views["global"].get("solarize")
        config = plan[place].config
        images[place] = _views({"global": view | ({"solarize": kept} if kept else {})}, config)
    np.testing.assert_allclose(images[2], -images[0], atol=1e-6)  # mean 1/2, so that signs swap


def _views(groups, config):
    make = image_views.build(groups, mean=config.data.mean, std=config.data.std)
    pixels = np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 16, 16, 1) % 256
    batch = {"image": pixels.astype(np.uint8), "index": np.arange(2, dtype=np.int32)}
    return np.asarray(make(jax.random.key(0), batch)["global"])


def test_a_stage_goes_on_with_the_moments_and_draws_anew():
    config = experiments.small("efficienttrain", **{"encoder.widths": (4, 4)})
    first, second, *_ = experiments.plan(config)
    program = Program(first.config, devices=jax.devices()[:1])
    state, _ = program.step(program.init(), next(program.batches(0)))
    left = {first.name: stages.artifact(state)}
    program = Program(second.config, left, jax.devices()[:1])
    state = stages.started(program.init(), second, left)
    for leaf, old in zip(
        jax.tree.leaves(stages.artifact(state)), jax.tree.leaves(left[first.name]), strict=True
    ):
        np.testing.assert_array_equal(leaf, old)
    assert int(state.step) == 0
    batches = [next(Program(s.config).batches(0))["index"] for s in (first, second)]
    assert (np.asarray(batches[0]) != np.asarray(batches[1])).any()
