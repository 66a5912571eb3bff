"""A training step in plain PyTorch of what a description names: the peers torch, torch_compile."""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._inductor.exc import InductorError

from . import Unsupported, torch_losses, torch_networks, torch_views

METHODS = ("composed",)
LOSSES = ("lejepa_prediction", "sigreg", "nt_xent", "byol", "dino", "mae", "vicreg", "barlow_twins")
Stacks = dict[str, Tensor]


def make(description: Mapping[str, Any], compiled: bool = False) -> "Step":
    """The step; where `compiled`, its views, networks and terms are one `torch.compile`."""
    return Step(description, compiled)


class Step:
    """Views, networks, terms, gradients, optimizer and teachers; see the package for its face."""

    def __init__(self, d: Mapping[str, Any], compiled: bool = False):
        check(d)
        torch.manual_seed(0)
        torch.set_num_threads(d["threads"])
        torch.set_float32_matmul_precision("high")  # tensor cores for views, as ours have them
        self.d, self.device = d, torch.device(d["device"])
        self.batches = self.load(d["data"])
        nets: Any = torch_networks.build(d).to(self.device)
        self.nets = nets.to(memory_format=torch.channels_last)
        self.teachers = {name: self._copy(t) for name, t in d["teachers"].items()}
        self.parameters = {
            name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()
        }
        self.mean, self.std = (
            torch.tensor(d[n], dtype=torch.float32, device=self.device).view(-1, 1, 1)
            for n in ("mean", "std")
        )
        self.centers = {
            name: torch.zeros(_center_width(nets, d, term), device=self.device)
            for name, term in d["losses"].items()
            if "center" in term
        }
        terms = d["losses"].values()
        read = [name for t in terms for name in (t["student"], t.get("teacher", "")) if name]
        self.wanted = {name.rpartition("/")[2] for name in read}
        self.optimizer = optimizer(nets, d["optimizer"])
        self.half = d["precision"] == "bfloat16"
        self._loss = torch.compile(self.loss) if compiled else self.loss
        self._taken = self.peak_bytes = 0
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else ""
        self.facts: dict[str, Any] = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": gpu or "cpu",
        }

    def run(self, count: int) -> tuple[float, float]:
        """`count` steps: (seconds, the last loss)."""
        began = time.perf_counter()
        for _ in range(count):
            images = self.batches[self._taken % len(self.batches)]
            self._taken += 1
            loss = self.step(images)
        value = float(loss)  # waits for the device
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated()
        return time.perf_counter() - began, value

    def load(self, path: str) -> Any:
        """The batches uint8 [K, B, H, W, C] of the file, on the device."""
        batches = torch.from_numpy(np.load(path)).to(self.device)
        return batches.permute(0, 1, 4, 2, 3)

    def step(self, inputs: Any) -> Tensor:
        """One step on what `loss` takes."""
        try:
            return self._step(inputs)
        except InductorError:
            # An analysis that picks the tiles of a kernel fails an assertion of its own on our
            # views and networks (PyTorch 2.11 on a GPU). The compiler does without it as well.
            tiling = torch._inductor.config.triton
            if not getattr(tiling, "coalesce_tiling_analysis", False):
                raise
            tiling.coalesce_tiling_analysis = False
            self.facts["left out"] = "coalesce_tiling_analysis of torch.compile, which failed"
            torch._dynamo.reset()
            self._loss = torch.compile(self.loss)
            return self._step(inputs)

    def _step(self, inputs: Any) -> Tensor:
        loss = self._loss(inputs)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if limit := self.d["optimizer"]["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(self.nets.parameters(), limit)
        self.optimizer.step()
        for name, teacher in self.teachers.items():
            rate = 1 - self.d["teachers"][name]["decay"]
            student: list[Tensor] = [p for part in teacher for p in self.nets[part].parameters()]
            with torch.no_grad():
                torch._foreach_lerp_(list(teacher.parameters()), student, rate)
        return loss.detach()

    def views(self, images: Tensor) -> Stacks:
        """{group: [V * B, C, s, s]} of uint8 [B, C, H, W]."""
        groups = self.d["views"].items()
        return {n: torch_views.make(images, g, self.mean, self.std) for n, g in groups}

    def loss(self, images: Tensor) -> Tensor:
        """Views, networks and terms."""
        with torch.no_grad():
            views = self.views(images)
        return self.loss_of(views)

    def loss_of(self, views: Stacks) -> Tensor:
        """Networks and terms, the networks in bfloat16 where the config asks for it."""
        hidden = self._hide(views) if self.d["masks"] else {}
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with autocast:
            outputs = self._outputs(self.nets, views, hidden)
            seen = {}
            for name, teacher in self.teachers.items():
                groups = self.d["teachers"][name]["views"]
                with torch.no_grad():
                    seen[name] = self._outputs(teacher, {g: views[g] for g in groups}, {})
        outputs = {name: x.float() for name, x in outputs.items()}
        if "target" in hidden:
            seen["input"] = dict.fromkeys(self.d["targets"], hidden["target"])
        return sum(
            term["weight"] * self.term(name, term, outputs, seen, hidden)
            for name, term in self.d["losses"].items()
        )

    def term(
        self,
        name: str,
        term: Mapping[str, Any],
        outputs: Stacks,
        seen: Mapping[str, Stacks],
        hidden: Mapping[str, Tensor],
    ) -> Tensor:
        """One term, its views paired as the config says."""
        z, other = outputs[term["student"]], None
        if teacher := term.get("teacher"):
            where, _, output = teacher.rpartition("/")
            other = seen[where][output].float() if where else outputs[output]
        fields = dict(term["fields"])
        if term["fn"] == "lejepa_prediction":
            fields["num_global"] = self.d["num_global"]
        if term["fn"] == "sigreg":
            directions = torch.randn(z.shape[-1], term["num_slices"], device=z.device)
            fields["directions"] = directions / directions.norm(dim=0)
        if term["fn"] == "mae":
            fields["mask"] = hidden["mask"]
        if name in self.centers:
            assert other is not None
            fields["center"] = self.centers[name].clone()
            with torch.no_grad():
                rate = 1 - term["center"].get("momentum", 0.9)
                self.centers[name].lerp_(other.mean((0, 1)), rate)
        return paired(self.fn(term["fn"]), term["pairs"], z, other, fields)

    def fn(self, name: str) -> Any:
        """The function of that name on the arrays of a term."""
        return getattr(torch_losses, name)

    def _copy(self, teacher: Mapping[str, Any]) -> nn.ModuleDict:
        parts = {name: copy.deepcopy(self.nets[name]) for name in teacher["follows"]}
        return nn.ModuleDict(parts).requires_grad_(False)

    def _outputs(self, nets: Any, views: Stacks, hidden: Mapping[str, Tensor]) -> Stacks:
        """{output: [V, B, ...]} of all views, in the order of their groups."""
        batch, apart = self.d["batch"], self.d["batch_statistics"]
        blocks = [[x] for x in views.values()]
        if apart == "view":
            blocks = [list(x.split(batch)) for x in views.values()]
        extra = {"kept": hidden["kept"]} if hidden else {}
        outs = [nets["encoder"](x, **extra) for group in blocks for x in group]
        if apart == "all" and len(outs) > 1:
            # Heads see all views at once; groups of several sizes have unlike numbers of tokens.
            outs = [{"pooled": torch.cat([out["pooled"] for out in outs])}]
        found = {name: [out[name] for out in outs] for name in outs[0]}
        for name, head in self.d["heads"].items():
            if name in nets:
                more = (hidden["restore"],) if head["name"] == "decoder" else ()
                parts = found[head["reads"]]
                found[head["output"]] = [nets[name](x, *more) for x in parts]
        wanted = self.wanted & found.keys()
        return {name: torch.cat(found[name]).unflatten(0, (-1, batch)) for name in wanted}

    def _hide(self, views: Stacks) -> dict[str, Tensor]:
        """Which patches are kept, where each lands, the mask, and the patches themselves."""
        (x,), (mask,) = views.values(), self.d["masks"].values()
        patch = self.d["encoder"]["patch"]
        count = (x.shape[-1] // patch) ** 2
        kept = count - math.ceil(count * mask["ratio"])
        order = torch.rand(len(x), count, device=x.device).argsort(1)
        restore = order.argsort(1)
        patches = x.unfold(2, patch, patch).unfold(3, patch, patch)
        target = patches.permute(0, 2, 3, 4, 5, 1).reshape(1, len(x), count, -1)
        return {
            "kept": order[:, :kept],
            "restore": restore,
            "mask": (restore >= kept).float(),
            "target": target,
        }


def check(d: Mapping[str, Any]) -> None:
    """Raise Unsupported for what a step here does not do."""
    if d["device"] == "cuda" and not torch.cuda.is_available():
        raise Unsupported("torch sees no GPU, and ours is on one")
    if d["device"] not in ("cpu", "cuda"):
        raise Unsupported(f"torch has no device for {d['device']!r}")
    if d["method"] not in METHODS:
        raise Unsupported(f"method: found {d['method']!r}, the peer has {', '.join(METHODS)}")
    for name, term in d["losses"].items():
        if term["fn"] not in LOSSES:
            raise Unsupported(f"losses.{name}.fn: the peer has no {term['fn']!r}")
    for name, teacher in d["teachers"].items():
        if teacher["rule"] != "ema":
            raise Unsupported(f"teachers.{name}.rule: found {teacher['rule']!r}, the peer has ema")
    for name, mask in d["masks"].items():
        only = dict(name="random", how="drop", unit=1, probability=1.0)
        torch_networks.check_off(mask, f"masks.{name}", only)
    apart = d["batch_statistics"] != "all"
    if len(d["masks"]) > 1 or (d["masks"] and (apart or len(d["views"]) > 1)):
        raise Unsupported("masks: the peer has one, of one group of views")
    for name, value in d["method_options"].items():
        if name != "batch_statistics" and value:
            raise Unsupported(f"method_options.{name}: the peer has none")
    if d["microbatches"] > 1:
        raise Unsupported("train.microbatches: the peer takes a batch as a whole")
    torch_views.check(d["views"])


def optimizer(nets: nn.Module, o: Mapping[str, Any]) -> torch.optim.Optimizer:
    """AdamW or SGD as one fused kernel, without decay of vectors."""
    if o["clip_per_tensor"] or o["layer_decay"] or o["groups"]:
        raise Unsupported("optimizer: the peer has no groups and clips no single tensors")
    params = [p for p in nets.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": o["weight_decay"]},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate = o["learning_rate"]
    if o["name"] == "adamw":
        betas = (o["beta1"], o["beta2"])
        return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=o["eps"], fused=True)
    if o["name"] == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=o["momentum"], fused=True)
    raise Unsupported(f"optimizer.name: the peer has no {o['name']!r}; it has adamw, sgd")


def paired(
    fn: Any, pairs: str, z: Tensor, other: Tensor | None, fields: Mapping[str, Any]
) -> Tensor:
    """fn over views [V, B, ...] as `pairs` says; the mean where it meets several."""
    views = range(len(z))
    if pairs == "all":
        return fn(z, **fields) if other is None else fn(z, other, **fields)
    if pairs == "single":
        values = [fn(z[v], **fields) for v in views]
    else:
        assert other is not None
        meets: dict[str, Sequence[tuple[int, int]]] = {
            "cross": [(u, v) for u in views for v in range(len(other)) if u != v],
            "unordered": [(u, v) for u in views for v in range(len(other)) if u < v],
            "same": [(v, v) for v in range(len(other))],
        }
        if pairs not in meets:
            raise Unsupported(f"pairs: the peer has no {pairs!r}")
        values = [fn(z[u], other[v], **fields) for u, v in meets[pairs]]
    return torch.stack(values).mean()


def _center_width(nets: Any, d: Mapping[str, Any], term: Mapping[str, Any]) -> int:
    output = term["teacher"].rpartition("/")[2]
    (name,) = (name for name, head in d["heads"].items() if head["output"] == output)
    return nets[name].width
