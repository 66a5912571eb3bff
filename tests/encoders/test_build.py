"""Encoders are found by name, and what is wrong in a config is said in one line."""

import jax.numpy as jnp
import ml_collections
import pytest

from jaxssl import encoders
from jaxssl.config.errors import ConfigError


def test_builds_from_a_config_dict():
    config = ml_collections.ConfigDict({"name": "vit", "width": 16, "depth": 1, "heads": 2})
    net = encoders.build(config, dtype=jnp.bfloat16)
    assert (net.width, net.drop_depth, net.dtype) == (16, 1, jnp.bfloat16)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "vitt"}, "encoder.name: found 'vitt'.*did you mean 'vit'"),
        ({"name": "transformer"}, "encoder.name: found 'transformer'.*known: convnet"),
        ({}, "encoder.name: missing; known: convnet, .*residual_unet, .*vit"),
        ({"name": "vit", "pach": 4}, "encoder.pach: no such field of 'vit'; did you mean 'patch'"),
        ({"name": "vit", "dtype": "x"}, "encoder.dtype: no such field"),
        ({"name": "vit", "size": "XL"}, "encoder.size: found 'XL', expected 'Ti' or"),
        ({"name": "vit", "pool": "max"}, "encoder.pool: found 'max', expected 'cls' or 'mean'"),
        ({"name": "vit", "ffn": "glu"}, "encoder.ffn: .*did you mean 'swiglu'"),
        ({"name": "vit", "heads": 5}, "encoder.heads: found 5, expected a divisor of 384"),
        ({"name": "vit", "image_size": 30}, "encoder.image_size: found 30, .*patch = 16"),
        ({"name": "vit", "class_token": False}, "encoder.class_token: .*expected True for pool"),
        ({"name": "vit", "width": 6, "heads": 1, "posemb": "sincos2d"}, "encoder.width: found 6"),
        ({"name": "resnet", "depth": 20}, "encoder.depth: found 20, expected 18 or 34"),
        ({"name": "resnet", "stem": "cifar10"}, "encoder.stem: .*did you mean 'cifar'"),
        ({"name": "convnext", "size": "larg"}, "encoder.size: .*did you mean 'large'"),
        ({"name": "convnext", "version": 3}, "encoder.version: found 3, expected 1 or 2"),
        ({"name": "convnet", "widths": (8, 8)}, "encoder.strides: found 5 values, expected 2"),
        ({"name": "convnet", "widths": (8, -8)}, "encoder.widths: .*positive integer"),
        ({"name": "convnet", "norm": "layer"}, "encoder.norm: found 'layer'"),
    ],
)
def test_errors_name_the_field(config, message):
    with pytest.raises(ConfigError, match=message) as raised:
        encoders.build(config, dtype=jnp.float32)
    assert "\n" not in str(raised.value)
