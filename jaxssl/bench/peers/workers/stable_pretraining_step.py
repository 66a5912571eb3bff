"""The peer stable_pretraining: its JAX backend's backbone, method, views and compiled step.

Its projector has no norm, its jitter neither saturation nor hue, and it never blurs; what a config
asks for beyond that is left out, which is named in `facts` and is work that it does not do.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import Unsupported, torchvision_ops

# our loss -> (its class, the fields of its constructor by ours)
METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "nt_xent": ("SimCLR", {"temperature": "temperature"}),
    "byol": ("BYOL", {}),
    "simsiam": ("SimSiam", {}),
    "barlow_twins": ("BarlowTwins", {"off_diagonal_weight": "lambd"}),
    "vicreg": (
        "VICReg",
        {
            "invariance_weight": "sim_coeff",
            "variance_weight": "std_coeff",
            "covariance_weight": "cov_coeff",
        },
    ),
}
# the class -> its field for the hidden width of the predictor
PREDICTORS = {"BYOL": "predictor_hidden", "SimSiam": "predictor_dim"}
OURS = {"encoder": "backbone"}  # our network -> its name there, where that is another
VIEWS = ("crop", "flip", "grayscale")
JITTER = ("brightness", "contrast")


def make(description: Mapping[str, Any]) -> "Step":
    """The step."""
    return Step(description)


class Step:
    """Its own compiled step; see the package for its face."""

    def __init__(self, d: Mapping[str, Any]):
        (fn, projector), group = check(d)
        torchvision_ops.declare()
        import jax
        import stable_pretraining.jax as spj
        from flax import nnx
        from stable_pretraining.jax import trainer

        self._jax, self._update = jax, spj.backbone.teacher_student.ema_update
        self._train_step = trainer._train_step
        half = jax.numpy.bfloat16 if d["precision"] == "bfloat16" else None
        rngs = nnx.Rngs(0)
        backbone = _backbone(spj.backbone, d, half, rngs)
        name, fields = METHODS[fn]
        (term,) = d["losses"].values()
        given = {fields[k]: v for k, v in term["fields"].items() if k in fields}
        if name == "SimCLR":
            given["dtype"] = half
        if name in PREDICTORS:
            given[PREDICTORS[name]] = d["heads"]["predictor"]["widths"][0]
        o = d["optimizer"]
        optimizer = dict(type="adamw", learning_rate=o["learning_rate"], b1=o["beta1"])
        optimizer |= dict(b2=o["beta2"], weight_decay=o["weight_decay"])
        self.module = getattr(spj, name)(
            backbone=backbone,
            embed_dim=backbone.embed_dim,
            rngs=rngs,
            projector_dims=projector["widths"],
            optim=optimizer,
            **given,
        )
        self.module._transform = _views(jax, spj.augment, d, group)
        self.module.aug_rngs = nnx.Rngs(0)
        tx = spj.create_optimizer(optimizer)
        self.optimizer = nnx.Optimizer(self.module, tx, wrt=nnx.Param)
        self.batches = [{"image": jax.numpy.asarray(x)} for x in np.load(d["data"])]
        self.teachers = spj.callbacks.teacher_student._find_wrappers(self.module)
        self.parameters = {
            part: sum(x.size for x in jax.tree.leaves(nnx.state(net, nnx.Param)))
            for part in ("encoder", *d["heads"])
            if (net := getattr(self.module, OURS.get(part, part), None)) is not None
        }
        found = jax.devices()[0].device_kind
        self.facts = {"jax": jax.__version__, "device": found, "left out": _left_out(d, group)}
        self._taken = 0

    def run(self, count: int) -> tuple[float, float]:
        """`count` steps, dispatched one after another: (seconds, the last loss)."""
        jax, began = self._jax, time.perf_counter()
        for _ in range(count):
            batch = self.batches[self._taken % len(self.batches)]
            self._taken += 1
            state, _ = self._train_step(self.module, self.optimizer, batch)
            for teacher in self.teachers:
                self._update(teacher, jax.numpy.float32(teacher.ema))
        value = float(state["loss"])
        jax.block_until_ready([jax.tree.leaves(t) for t in self.teachers])
        return time.perf_counter() - began, value


def check(d: Mapping[str, Any]) -> tuple[tuple[str, Mapping[str, Any]], Mapping[str, Any]]:
    """((the loss, the projector), the group of views), or Unsupported."""
    fns = [term["fn"] for term in d["losses"].values()]
    if len(fns) != 1 or fns[0] not in METHODS:
        found = " + ".join(fns)
        raise Unsupported(f"losses: found {found}, the peer has one of {', '.join(METHODS)}")
    if d["encoder"]["name"] not in ("resnet", "vit"):
        raise Unsupported(
            f"encoder: the peer has no {d['encoder']['name']!r}; it has resnet (18, 34, 50), vit"
        )
    if len(d["views"]) != 1 or (group := next(iter(d["views"].values())))["count"] != 2:
        raise Unsupported("views: the peer has one group of two views")
    if "crop" not in group["transforms"] or d["channels"] != 3:
        raise Unsupported("views: the peer crops images of three channels")
    if d["optimizer"]["name"] != "adamw":
        raise Unsupported(f"optimizer.name: found {d['optimizer']['name']!r}, the bench has adamw")
    return (fns[0], d["heads"]["projector"]), group


def _backbone(backbones: Any, d: Mapping[str, Any], half: Any, rngs: Any) -> Any:
    e = d["encoder"]
    if e["name"] == "vit":
        if e["pool"] != "cls":
            raise Unsupported(f"encoder.pool: found {e['pool']!r}, the peer has 'cls'")
        sizes = dict(img_size=e["image_size"], patch_size=e["patch"], embed_dim=e["width"])
        return backbones.ViT(rngs=rngs, depth=e["depth"], num_heads=e["heads"], dtype=half, **sizes)
    build = getattr(backbones, f"resnet{e['depth']}", None)
    if build is None or e["width_multiplier"] != 1:
        raise Unsupported(f"encoder.depth: the peer has no such resnet{e['depth']}")
    return build(rngs=rngs, low_resolution=e["stem"] == "cifar", dtype=half)


def _views(jax: Any, augment: Any, d: Mapping[str, Any], group: Mapping[str, Any]) -> Any:
    """Its own functions with our ranges, in the order of its `simclr_view`."""
    t, mean, std = group["transforms"], tuple(d["mean"]), tuple(d["std"])

    def view(key: Any, x: Any) -> Any:
        keys = jax.random.split(key, 4)
        x = augment.random_resized_crop(keys[0], x, group["size"], tuple(t["crop"]["scale"]))
        if "flip" in t:
            x = augment.random_horizontal_flip(keys[1], x, t["flip"]["probability"])
        if "jitter" in t:
            reach = [t["jitter"][name][1] - 1 for name in JITTER]
            x = augment.random_brightness_contrast(keys[2], x, *reach)
        if "grayscale" in t:
            x = augment.random_grayscale(keys[3], x, t["grayscale"]["probability"])
        return augment.normalize(x, mean, std)

    def transform(module: Any, batch: dict[str, Any]) -> dict[str, Any]:
        x = batch["image"].astype(jax.numpy.float32) / 255
        keys = jax.random.split(module.aug_rngs(), 2)
        return batch | {"views": [{"image": view(key, x)} for key in keys]}

    return transform


def _left_out(d: Mapping[str, Any], group: Mapping[str, Any]) -> str:
    t = dict(group["transforms"])
    jitter = t.pop("jitter", {})
    idle = {"saturation": [1.0, 1.0], "hue": [0.0, 0.0], "additive": [0.0, 0.0]}
    names = [name for name in t if name not in VIEWS]
    names += [f"jitter.{n}" for n, ends in idle.items() if n in jitter and jitter[n] != ends]
    names += [f"{h}.norm" for h, head in d["heads"].items() if head.get("norm", "none") != "none"]
    return ", ".join(names) or "nothing"
