"""Fine-tuning as a list of stages: what each one learns, and what the second starts with."""

import jax
import numpy as np
import pytest

import experiments
from jaxssl.config.naming import named_leaves
from jaxssl.program import Program
from jaxssl.run import stages


@pytest.mark.parametrize("preset", experiments.presets("finetune"))
def test_labels_are_for_the_second_stage_alone(preset):
    pretrain, finetune = experiments.plan(experiments.load("finetune", preset))
    assert set(pretrain.config.losses) == {"prediction", "sigreg"}
    assert set(finetune.config.losses) == {"classes"}
    assert set(pretrain.config.student) == {"projector"}
    assert set(finetune.config.student) == {"classifier"}
    assert (finetune.init_from, finetune.take) == ("pretrain", ("params/encoder",))
    assert pretrain.config.encoder.to_dict() == finetune.config.encoder.to_dict()
    assert pretrain.config.views["global"].count > finetune.config.views["global"].count == 1
    # Lower layers keep more of what they learned without labels.
    assert pretrain.config.optimizer.layer_decay == 0 < finetune.config.optimizer.layer_decay < 1


def test_the_control_learns_from_the_labels_alone_for_as_long():
    (alone,) = experiments.plan(experiments.load("finetune", "digits", "--config.stages=()"))
    finetune = experiments.plan(experiments.load("finetune"))[1]
    kept = ("losses", "student", "views", "optimizer", "encoder")
    for name in kept:
        assert alone.config[name].to_dict() == finetune.config[name].to_dict()
    assert alone.config.train.steps == finetune.config.train.steps and not alone.init_from


def test_the_encoder_is_taken_and_the_classifier_is_new_and_lower_layers_move_less():
    pretrain, finetune = experiments.plan(experiments.small("finetune"))
    left = {"pretrain": stages.artifact(Program(pretrain.config).init())}
    program = Program(finetune.config)
    before = stages.started(program.init(), finetune, left)
    old, new = (named_leaves(x["params"]) for x in (left["pretrain"], stages.artifact(before)))
    encoder = {name: np.asarray(leaf) for name, leaf in new.items() if name.startswith("encoder/")}
    for name, leaf in encoder.items():
        np.testing.assert_array_equal(leaf, old[name])
    assert any(name.startswith("classifier/") for name in new)
    assert not any(name.startswith("projector/") for name in new)

    batches = program.batches(0)
    state = before
    for _ in range(3):
        state, metrics = program.step(state, next(batches))
    assert np.isfinite(float(metrics["loss"]))
    after = named_leaves(jax.device_get(state.params))
    # Adam moves all values alike, so what is left between layers is their learning rate.
    moved = lambda word: max(
        np.abs(after[name] - leaf).max() for name, leaf in encoder.items() if word in name
    )
    assert moved("patch_embedding") < moved("block0") < moved("block1")
