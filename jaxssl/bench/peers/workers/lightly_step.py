"""The peer lightly: its transforms in a PyTorch data loader, its losses, on plain PyTorch networks.

Its transforms work on one PIL image after another, so they run as its users run them: in as many
loader processes as there are cores, which start with a round and are done with it at its end.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import Unsupported, torch_step, torchvision_ops

# its class -> the fields of its constructor by ours
LOSSES: dict[str, tuple[str, dict[str, str]]] = {
    "nt_xent": ("NTXentLoss", {"temperature": "temperature"}),
    "byol": ("NegativeCosineSimilarity", {}),
    "barlow_twins": ("BarlowTwinsLoss", {"off_diagonal_weight": "lambda_param"}),
    "vicreg": (
        "VICRegLoss",
        {
            "invariance_weight": "lambda_param",
            "variance_weight": "mu_param",
            "covariance_weight": "nu_param",
        },
    ),
}
VIEWS = ("crop", "flip", "vertical_flip", "jitter", "grayscale", "blur")


def make(description: Mapping[str, Any]) -> "Step":
    """The step."""
    return Step(description)


class Images(torch.utils.data.Dataset):
    """Every image of the batches, as the views that lightly's transforms make of it."""

    def __init__(self, path: str, transforms: list[Any], channels: int):
        batches = np.load(path)
        self.batch, self.transforms = batches.shape[1], transforms
        self.images = batches.reshape(-1, *batches.shape[2:])
        if channels == 1:
            self.images = self.images[..., 0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[Tensor]:
        from PIL import Image

        image = Image.fromarray(self.images[index])
        return [transform(image) for transform in self.transforms]


class Step(torch_step.Step):
    """Views from a loader, and lightly's losses."""

    def __init__(self, d: Mapping[str, Any]):
        torchvision_ops.declare()
        import lightly
        from lightly import loss

        self.fns = {term["fn"]: _loss(loss, name, term) for name, term in d["losses"].items()}
        super().__init__(d)
        self.facts |= {"lightly": lightly.__version__, "loader processes": d["threads"]}

    def load(self, path: str) -> Any:
        """The data set; `run` makes a loader over as many batches as it takes steps."""
        transforms = [
            _transform(name, group, self.d)
            for name, group in self.d["views"].items()
            for _ in range(group["count"])
        ]
        return Images(path, transforms, self.d["channels"])

    def run(self, count: int) -> tuple[float, float]:
        """`count` steps, from the start of the loader's processes: (seconds, the last loss)."""
        began = time.perf_counter()
        images = self.batches
        order = torch.arange(count * images.batch) % len(images)
        loader = torch.utils.data.DataLoader(
            images,
            batch_size=images.batch,
            sampler=order.tolist(),
            num_workers=self.d["threads"],
            pin_memory=self.device.type == "cuda",
        )
        for views in loader:
            loss = self.step(views)
        return time.perf_counter() - began, float(loss)

    def views(self, images: Any) -> torch_step.Stacks:
        """{group: [V * B, C, s, s]} of a loader's list of views [B, C, s, s]."""
        found, left = {}, iter(images)
        for name, group in self.d["views"].items():
            views = torch.cat([next(left) for _ in range(group["count"])])
            found[name] = views.to(self.device, memory_format=torch.channels_last)
        return found

    def fn(self, name: str) -> Any:
        """Lightly's loss."""
        return self.fns[name]


def _loss(losses: Any, where: str, term: Mapping[str, Any]) -> Any:
    """A function of the arrays and of our fields, which its constructor has taken."""
    name, given = term["fn"], term["fields"]
    if name == "lejepa_prediction":
        from lightly.loss.lejepa_loss import lejepa_invariance_loss

        return lambda z, num_global: lejepa_invariance_loss(all_proj=z, global_proj=z[:num_global])
    if name == "sigreg":
        test = losses.SIGReg(num_vectors=term["num_slices"])
        return lambda z, directions: test(z)
    if name not in LOSSES:
        raise Unsupported(f"losses.{where}.fn: the peer has no {name!r}")
    kind, fields = LOSSES[name]
    made = getattr(losses, kind)(**{fields[k]: v for k, v in given.items() if k in fields})
    if name == "byol":
        return lambda p, t: 2 + 2 * made(p, t)
    return lambda a, b, **_: made(a, b)


def _transform(name: str, group: Mapping[str, Any], d: Mapping[str, Any]) -> Any:
    from lightly.transforms.simclr_transform import SimCLRViewTransform

    t = group["transforms"]
    for transform in t:
        if transform not in VIEWS:
            raise Unsupported(f"views.{name}.{transform}: its SimCLR transform has none")
    jitter = t.get("jitter", {"probability": 0.0})
    reach = lambda field, idle: jitter.get(field, (idle, idle))[1] - idle
    chance = lambda field: t.get(field, {"probability": 0.0})["probability"]
    return SimCLRViewTransform(
        input_size=group["size"],
        cj_prob=jitter["probability"],
        cj_bright=reach("brightness", 1.0),
        cj_contrast=reach("contrast", 1.0),
        cj_sat=reach("saturation", 1.0),
        cj_hue=reach("hue", 0.0),
        min_scale=t["crop"]["scale"][0] if "crop" in t else 1.0,
        random_gray_scale=chance("grayscale"),
        gaussian_blur=chance("blur"),
        sigmas=tuple(t.get("blur", {"sigma": (0.1, 2.0)})["sigma"]),
        vf_prob=chance("vertical_flip"),
        hf_prob=chance("flip"),
        normalize={"mean": d["mean"], "std": d["std"]},
    )
