"""Names of ResNets in timm and torchvision."""

from jaxssl.encoders.resnet import ResNet
from jaxssl.weights.entry import Entry, Family, State, batch_norm, conv


def _entries(encoder: ResNet) -> list[Entry]:
    found = [*conv("conv1", "stem_conv", bias=False), *batch_norm("bn1", "stem_norm")]
    parts = ("0", "1", "_last") if encoder.bottleneck else ("0", "_last")
    for stage, count in enumerate(encoder.blocks):
        for i in range(count):
            there, here = f"layer{stage + 1}.{i}", f"stage{stage}_block{i}"
            for place, part in enumerate(parts, 1):
                found += conv(f"{there}.conv{place}", f"{here}/conv{part}", bias=False)
                found += batch_norm(f"{there}.bn{place}", f"{here}/norm{part}")
            # The first block of a stage changes the width, but for plain blocks in the first stage.
            if not i and (stage or encoder.bottleneck):
                found += conv(f"{there}.downsample.0", f"{here}/conv_shortcut", bias=False)
                found += batch_norm(f"{there}.downsample.1", f"{here}/norm_shortcut")
    return found


def _prepare(encoder: ResNet, state: State) -> State:
    # How many batches a norm has seen matters only where it has no momentum.
    return {k: v for k, v in state.items() if not k.endswith(".num_batches_tracked")}


FAMILY = Family(_entries, ("fc.",), prepare=_prepare)
