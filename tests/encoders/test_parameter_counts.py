"""The encoders have exactly the published numbers of parameters, without a classifier."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxssl import encoders


def count(side=32, **fields):
    net = encoders.build(fields, dtype=jnp.float32)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    init = lambda x: net.init(jax.random.key(0), x, train=False)["params"]
    leaves = jax.tree.leaves(jax.eval_shape(init, images))
    return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize(
    ("size", "patch", "published"),
    [
        ("Ti", 16, 5_524_416),
        ("S", 16, 21_665_664),
        ("B", 16, 85_798_656),
        ("L", 16, 303_301_632),
        ("H", 14, 630_764_800),
    ],
)
def test_vit(size, patch, published):
    # Scanned layers have the same parameters, stacked, and trace faster.
    assert count(224, name="vit", size=size, patch=patch, scan=size != "Ti") == published


def test_vit_giant_of_dinov2():
    """Its checkpoint: positions of 518 pixels, SwiGLU, layer scale, a mask token, no registers."""
    fields = {"size": "g", "patch": 14, "image_size": 518, "mask_token": True, "scan": True}
    assert count(224, name="vit", **fields) == 1_136_480_768


@pytest.mark.parametrize(
    ("depth", "published"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)],
)
def test_resnet(depth, published):
    width = 512 if depth < 50 else 2048
    assert count(name="resnet", depth=depth) == published - 1000 * (width + 1)


def test_resnet_cifar_stem_differs_by_its_kernel():
    cifar = count(name="resnet", depth=18, stem="cifar")
    assert count(name="resnet", depth=18) - cifar == (7 * 7 - 3 * 3) * 3 * 64


@pytest.mark.parametrize(
    ("version", "size", "width", "published"),
    [
        (1, "tiny", 96, 28_589_128),
        (1, "small", 96, 50_223_688),
        (1, "base", 128, 88_591_464),
        (1, "large", 192, 197_767_336),
        (2, "atto", 40, 3_708_400),
        (2, "femto", 48, 5_233_240),
        (2, "pico", 64, 9_066_280),
        (2, "nano", 80, 15_623_800),
        (2, "tiny", 96, 28_635_496),
        (2, "base", 128, 88_717_800),
        (2, "large", 192, 197_956_840),
        (2, "huge", 352, 660_289_640),
    ],
)
def test_convnext(version, size, width, published):
    head = 1000 * (8 * width + 1)
    assert count(name="convnext", version=version, size=size) == published - head
