"""Lets torchvision be imported beside a torch for CPUs alone."""

import torch


def declare() -> None:
    """Names the two operators that torchvision describes although it could not load them.

    Its packages for Linux are built against a torch with CUDA; beside another they lose their
    operators, and then the import fails. No transform and no loss uses an operator.
    """
    box = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    if not torch.version.cuda:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", box)
