"""Names of ConvNeXts, versions 1 and 2, in timm."""

from typing import Any

from jaxssl.encoders.convnext import ConvNeXt
from jaxssl.weights.entry import Entry, Family, State, conv, linear, norm


def _entries(encoder: ConvNeXt) -> list[Entry]:
    found = [*conv("stem.0", "stem_conv", bias=True), *norm("stem.1", "stem_norm")]
    for stage, count in enumerate(encoder.blocks):
        if stage:
            found += norm(f"stages.{stage}.downsample.0", f"downsample{stage}_norm")
            found += conv(f"stages.{stage}.downsample.1", f"downsample{stage}_conv", bias=True)
        for i in range(count):
            there, here = f"stages.{stage}.blocks.{i}", f"stage{stage}_block{i}"
            found += conv(f"{there}.conv_dw", f"{here}/depthwise", bias=True)
            found += norm(f"{there}.norm", f"{here}/norm")
            found += linear(f"{there}.mlp.fc1", f"{here}/up")
            if encoder.version == 2:
                found += norm(f"{there}.mlp.grn", f"{here}/grn")
            found += linear(f"{there}.mlp.fc2", f"{here}/down")
            if encoder.layer_scale:
                found.append(Entry(f"{there}.gamma", f"params/{here}/scale"))
    return found + norm("head.norm", "norm")


def _prepare(encoder: ConvNeXt, state: State) -> State:
    # timm's smallest models write their dense layers as 1 x 1 convolutions.
    def dense(name: str, value: Any) -> Any:
        pointwise = ".mlp.fc" in name and value.ndim == 4 and value.shape[2:] == (1, 1)
        return value[:, :, 0, 0] if pointwise else value

    return {name: dense(name, value) for name, value in state.items()}


FAMILY = Family(_entries, ("head.fc.",), prepare=_prepare)
