"""The classifier head: its widths, and what the data decide."""

import jax
import jax.numpy as jnp
import pytest

from jaxssl import heads
from jaxssl.config.errors import ConfigError


def test_without_hidden_layers_it_is_one_linear_layer():
    head = heads.build({"name": "classifier", "width": 5, "bias": False}, dtype=jnp.float32)
    params = head.init(jax.random.key(0), jnp.ones((4, 3)), train=False)["params"]
    assert jax.tree.map(jnp.shape, params) == {"linear0": {"kernel": (3, 5)}}


def test_hidden_layers_are_normalised_and_the_logits_are_not():
    head = heads.build({"name": "classifier", "width": 5, "hidden": (7,)}, dtype=jnp.float32)
    variables = head.init(jax.random.key(0), jnp.ones((4, 3)), train=False)
    assert variables["params"]["linear1"]["kernel"].shape == (7, 5)
    assert set(variables["batch_stats"]) == {"norm0"}


def test_no_classes_is_an_error():
    with pytest.raises(ConfigError, match="width"):
        heads.build({"name": "classifier", "width": 0}, dtype=jnp.float32)
