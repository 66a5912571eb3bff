"""Recipes of images: presets from scikit-learn's digits to ImageNet-1k, and what methods share."""

from collections.abc import Callable
from typing import Any

from jaxssl.config.errors import ConfigError, near
from jaxssl.config.recipes import Presets, data_path

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR10 = dict(mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))


def crop_recipe(scale: tuple[float, float]) -> dict[str, Any]:
    """Random resized crop of an area in `scale`, and the usual colour recipe of the field."""
    return dict(
        crop=dict(scale=scale),
        flip=0.5,
        jitter=dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
        grayscale=0.2,
        blur=dict(probability=0.5, sigma=(0.1, 2.0)),
        solarize=0.2,
    )


def imagenet_pair(recipe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The transforms of a first and a second view of 224 px, as published.

    "simclr": crops from 8 % of the area, strong colour jitter, blur with probability 1/2. "moco":
    crops from 20 %, weaker jitter. "asymmetric" (BYOL and what follows it): the first view is
    always blurred, the second seldom, and solarized at times.
    """
    strong = dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8)
    weak = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
    uneven = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8)
    blurred = lambda p: dict(probability=p, sigma=(0.1, 2.0), taps=23)
    shared: dict[str, Any] = dict(flip=0.5, grayscale=0.2)
    both = {
        "simclr": dict(crop=dict(scale=(0.08, 1.0)), jitter=strong, blur=blurred(0.5), **shared),
        "moco": dict(crop=dict(scale=(0.2, 1.0)), jitter=weak, blur=blurred(0.5), **shared),
    }
    if recipe in both:
        return both[recipe], both[recipe]
    if recipe != "asymmetric":
        raise ConfigError(f"no view recipe {recipe!r}{near(recipe, (*both, 'asymmetric'))}")
    shared |= dict(crop=dict(scale=(0.08, 1.0)), jitter=uneven)
    return shared | dict(blur=blurred(1.0)), shared | dict(blur=blurred(0.1), solarize=0.2)


def two_views(config: Any, recipe: str, names: tuple[str, ...] = ()) -> None:
    """Two views of a sample: one group "global", or a group of one view for each of two names.

    At 224 px they follow `imagenet_pair(recipe)`; smaller scales keep the recipe of their data,
    where a blur or an inversion would take away what there is to see.
    """
    group = config.views["global"].to_dict()
    pair = [{k: v for k, v in group.items() if k != "count"}] * 2
    if group["size"] == 224:
        pair = [dict(size=224, **transforms) for transforms in imagenet_pair(recipe)]
    if names:
        config.views = {name: dict(count=1, **view) for name, view in zip(names, pair, strict=True)}
    elif pair[0] == pair[1]:
        config.views = {"global": dict(count=2, **pair[0])}
    else:
        config.views = {
            name: dict(count=1, **view) for name, view in zip(("first", "second"), pair)
        }


def imagenet_multi_crop() -> dict[str, dict[str, Any]]:
    """SwAV's views: two of 224 px from 14 to 100 % of the area, six of 96 px from 5 to 14 %."""
    recipe = imagenet_pair("simclr")[0]
    crops = {"global": (2, 224, (0.14, 1.0)), "local": (6, 96, (0.05, 0.14))}
    return {
        name: recipe | dict(count=n, size=size, crop=dict(scale=scale))
        for name, (n, size, scale) in crops.items()
    }


def imagenet_recipe(
    config: Any,
    *,
    name: str,
    learning_rate: float,
    weight_decay: Any,
    batch: int,
    epochs: int,
    warmup_epochs: int = 10,
    end: float = 0.0,
    **fields: Any,
) -> None:
    """Optimizer, batch and length of a run on ImageNet-1k, warm-up and cosine, as published.

    Args:
      config: of a preset on ImageNet-1k.
      name: of the optimizer.
      learning_rate: the peak, at this batch.
      weight_decay: number or schedule.
      batch: B.
      epochs, warmup_epochs: lengths.
      end: the last learning rate.
      **fields: further fields of `config.optimizer`.
    """
    epoch = imagenet_epoch(batch)
    config.train.update(epochs=epochs, global_batch=batch)
    config.optimizer.update(
        name=name,
        learning_rate=("warmup_cosine", learning_rate, max(1, warmup_epochs * epoch), end),
        weight_decay=weight_decay,
        **fields,
    )
    config.evals.every_steps = 10 * epoch
    config.checkpoint.every_steps = epoch


def self_distillation_recipe(config: Any, *, batch: int, epochs: int) -> None:
    """The recipe of DINO and of what follows it, on a ViT; prototypes rest for an epoch.

    Caron et al. (2021), Emerging properties in self-supervised vision transformers, arXiv
    2104.14294.
    """
    imagenet_recipe(
        config,
        name="adamw",
        learning_rate=5e-4 * batch / 256,
        end=1e-6,
        weight_decay=("cosine", 0.04, 0.4),
        batch=batch,
        epochs=epochs,
        clip_per_tensor=3.0,
    )
    config.optimizer.groups = dict(
        prototypes=dict(match="^prototypes/vectors", freeze_until=imagenet_epoch(batch))
    )


def pretext_recipe(config: Any) -> None:
    """The recipe of classic pretext tasks on a ResNet-50: momentum, and drops to a tenth.

    Goyal, Mahajan, Gupta, Misra (2019), Scaling and benchmarking self-supervised visual
    representation learning, arXiv 1905.01235: 105 epochs with drops after 30, 60, 90 and 100. The
    first five are at a quarter of the peak here, and a ramp from it there.
    """
    batch, peak, epochs = 256, 0.1, 105
    imagenet_recipe(
        config, name="sgd", learning_rate=peak, weight_decay=1e-4, batch=batch, epochs=epochs
    )
    rates = {5: 1.0, 30: 0.1, 60: 0.01, 90: 1e-3, 100: 1e-4}
    changes = [(after * imagenet_epoch(batch), peak * part) for after, part in rates.items()]
    config.optimizer.learning_rate = ("piecewise", peak / 4, *changes)


def patches(
    config: Any, transforms: tuple[str, ...] = ("crop", "flip", "affine"), **fields: Any
) -> None:
    """One view of a sample and an encoder of patches, as methods that hide patches have them.

    Args:
      config: of a preset; the small ones get a small ViT in place of a convolutional network.
      transforms: what is kept of the recipe of views; the rest of it is for methods that compare
        views.
      **fields: of the encoder, over those that it has.
    """
    view = config.views["global"].to_dict()
    if config.preset in SMALL_VITS:
        config.encoder = dict(name="vit", pool="mean", **SMALL_VITS[config.preset])
        view["size"] = config.encoder.image_size
    config.encoder.update(fields)
    kept = {name: view[name] for name in ("size", *transforms) if name in view}
    config.views = {"global": dict(count=1, **kept)}
    if "crop" in kept:
        config.views["global"].crop.scale = (0.2, 1.0)


def longer(config: Any, times: int) -> None:
    """A run of `times` as many steps, evaluated and saved as often as it was before."""
    for section, field in (
        ("train", "steps"),
        ("evals", "every_steps"),
        ("checkpoint", "every_steps"),
    ):
        config[section][field] *= times


def grid(config: Any) -> tuple[int, int]:
    """Patches along the height and the width of a view of the group "global"."""
    side = config.views["global"].size // config.encoder.patch
    return (side, side)


def imagenet_epoch(batch: int) -> int:
    """Steps of an epoch of ImageNet-1k."""
    return 1_281_167 // batch


def rising(start: float, end: float, epochs: int, epoch: int) -> tuple[Any, ...]:
    """The schedule of equal stairs from `start` to `end`, one an epoch of `epoch` steps."""
    stairs = [start + (end - start) * i / (epochs - 1) for i in range(epochs)]
    return ("piecewise", start, *((i * epoch, stairs[i]) for i in range(1, epochs)))


def _digits(config: Any) -> None:
    """scikit-learn's 1,797 digits at 16 px: minutes on a laptop."""
    config.data.update(source="digits", size=16, mean=(0.3,), std=(0.35,))
    config.encoder = dict(
        name="convnet",
        widths=(32, 32, 64, 64, 128),
        strides=(1, 1, 2, 1, 1),
        space_to_depth=2,
        norm="batch",
    )
    glyphs = dict(
        affine=dict(rotation=12.0, log_scale=0.3, log_aspect=0.15, shear=0.15, shift=0.08),
        elastic=dict(grid=4, sigma=0.04),
        jitter=dict(contrast=0.3, additive=0.2),
        blur=dict(probability=0.5, sigma=(0.1, 1.0)),
        noise=dict(sigma=0.1),
    )
    config.views = {"global": dict(count=4, size=16, **glyphs)}
    config.train.update(steps=600, global_batch=128)
    config.optimizer.update(learning_rate=("warmup_cosine", 2e-3, 30, 2e-6), weight_decay=0.05)
    config.evals.update(every_steps=200)
    config.checkpoint.update(every_steps=200)


def _cifar10(config: Any) -> None:
    """CIFAR-10 with a small plain network: less than half an hour on two cores."""
    config.data.update(source="packed_jpeg", path=data_path("cifar10"), size=32, **CIFAR10)
    config.encoder = dict(
        name="convnet",
        widths=(64, 128, 128, 256, 256),
        strides=(1, 2, 1, 2, 1),
        space_to_depth=2,
        norm="batch",
    )
    recipe = dict(
        crop=dict(scale=(0.3, 1.0)),
        flip=0.5,
        jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4, probability=0.8),
        grayscale=0.1,
    )
    config.views = {"global": dict(count=2, size=24, **recipe)}
    config.train.update(steps=2800, global_batch=256)
    config.optimizer.update(learning_rate=("warmup_cosine", 2e-3, 100, 2e-6), weight_decay=0.05)
    config.evals.bank = 20_000
    config.evals.linear = config.evals.fewshot = None
    config.checkpoint.update(every_steps=400)


def _imagenette(config: Any) -> None:
    """Imagenette at 128 px with a ViT-S/8 (about two hours on one GPU for 800 epochs)."""
    config.data.update(source="packed_jpeg", path=data_path("imagenette128"), size=128, **IMAGENET)
    config.encoder = _vit("S", 8, 128)
    recipe = dict(
        crop=dict(scale=(0.08, 1.0)),
        flip=0.5,
        jitter=dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, probability=0.8),
        grayscale=0.2,
        blur=dict(probability=0.5, sigma=(0.1, 2.0), taps=7),
        solarize=0.2,
    )
    config.views = {"global": dict(count=4, size=128, **recipe)}
    config.train.update(epochs=800, global_batch=256, precision="bfloat16")
    config.optimizer.update(learning_rate=("warmup_cosine", 2e-3, 36, 2e-6), weight_decay=0.05)
    config.evals.every_steps = 50 * 36  # 36 steps an epoch
    config.checkpoint.every_steps = 10 * 36


def _imagenet1k(size: str, patch: int, batch: int) -> Callable[[Any], None]:
    """ImageNet-1k for 100 epochs with two global views at 224 px and six local ones at 98."""

    def fill(config: Any) -> None:
        config.data.update(source="tfds:imagenet2012", size=256, cache="none", **IMAGENET)
        config.data.update(test_split="validation")
        config.encoder = _vit(size, patch, 224)
        local = 98 if patch == 14 else 96
        config.views = {
            "global": dict(count=2, size=224, **crop_recipe((0.3, 1.0))),
            "local": dict(count=6, size=local, **crop_recipe((0.05, 0.3))),
        }
        config.method_options = dict(drop_path=0.1)
        config.train.precision = "bfloat16"
        imagenet_recipe(
            config,
            name="adamw",
            learning_rate=5e-4,
            end=5e-7,
            weight_decay=0.05,
            batch=batch,
            epochs=100,
        )
        _imagenet1k_evals(config)

    return fill


def _imagenet1k_evals(config: Any) -> None:
    config.evals.update(size=224, bank=100_000, test=20_000)
    config.evals.fewshot = None
    config.report.update(every_steps=50)


def _imagenet1k_resnet50(config: Any) -> None:
    """ImageNet-1k with a ResNet-50 and two views at 224 px; methods set their own recipe."""
    config.data.update(source="tfds:imagenet2012", size=256, cache="none", **IMAGENET)
    config.data.update(test_split="validation")
    config.encoder = dict(name="resnet", depth=50, stem="imagenet")
    config.views = {"global": dict(count=2, size=224, **imagenet_pair("simclr")[0])}
    config.train.precision = "bfloat16"
    imagenet_recipe(
        config, name="lars", learning_rate=4.8, weight_decay=1e-6, batch=4096, epochs=100
    )
    _imagenet1k_evals(config)


def _vit(size: str, patch: int, image: int) -> dict[str, Any]:
    """A ViT; from ViT-L up its layers are scanned and recomputed in the backward pass.

    Fused attention took a fifth off a step of LeJEPA's ViT-S/16 on an H100.
    """
    large = size in ("L", "H", "g")
    return dict(
        name="vit",
        size=size,
        patch=patch,
        image_size=image,
        pool="cls",
        attention="fused",
        scan=large,
        remat="full" if large else "none",
    )


# Vision transformers for a laptop, in place of the convolutional networks of small presets.
SMALL_VITS: dict[str, dict[str, Any]] = {
    "digits": dict(width=96, depth=4, heads=3, patch=4, image_size=16),
    "cifar10": dict(width=128, depth=6, heads=4, patch=4, image_size=32),
}

PRESETS: Presets = {
    "digits": _digits,
    "cifar10": _cifar10,
    "imagenette": _imagenette,
    "imagenet1k_resnet50": _imagenet1k_resnet50,
    "imagenet1k_vit_s16": _imagenet1k("S", 16, 512),
    "imagenet1k_vit_b16": _imagenet1k("B", 16, 1024),
    "imagenet1k_vit_l16": _imagenet1k("L", 16, 1024),
    "imagenet1k_vit_l14": _imagenet1k("L", 14, 512),
    "imagenet1k_vit_h14": _imagenet1k("H", 14, 1024),
    "imagenet1k_vit_g14": _imagenet1k("g", 14, 1024),
}
