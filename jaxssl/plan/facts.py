"""Data sets as a plan needs them: their size and shapes, without their samples."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxssl import data
from jaxssl.config.errors import ConfigError, near
from jaxssl.data.images import image_fields
from jaxssl.method import Field

# Public facts: training samples and classes, by the name in TFDS or that of the usual folder.
PUBLIC = {
    "imagenet2012": (1_281_167, 1000),
    "imagenet_resized": (1_281_167, 1000),
    "imagenette": (9_469, 10),
    "imagenette128": (9_469, 10),
    "places365_small": (1_803_460, 365),
    "cifar10": (50_000, 10),
    "cifar100": (50_000, 100),
    "mnist": (60_000, 10),
    "fashion_mnist": (60_000, 10),
    "svhn_cropped": (73_257, 10),
    "food101": (75_750, 101),
}


class Absent(NamedTuple):
    """A training split that is not here, with all that a program asks of one before it reads.

    Attributes:
      name: for people.
      size: N.
      num_classes: 0 without labels.
      fields: name in a batch -> its kind, shape and dtype.
    """

    name: str
    size: int
    num_classes: int
    fields: Mapping[str, Field]

    def __len__(self) -> int:
        return self.size


def source(config: Any, samples: int = 0, classes: int = -1) -> Any:
    """The training split that a config names: opened where it is here, else from public facts.

    Args:
      config: the `data` fields.
      samples: N; 0 asks the data set or the table.
      classes: of the labels, 0 without; -1 asks the data set or the table.

    Raises:
      ConfigError: neither here nor known, or the shape of a sample does not follow.
    """
    name = str(config.source).partition(":")[2] or pathlib.PurePath(config.path).name
    name = name.partition("/")[0].partition(":")[0]
    # A part of a split, or one of another name, has another size than the table says.
    whole = not config.ranges and config.train_split in ("", "train")
    known = PUBLIC.get(name) if whole else None
    if samples and classes < 0:
        classes = known[1] if known else 0
    if samples:
        return _absent(config, name, samples, classes)
    if str(config.source).startswith("tfds:") and known:
        return _absent(config, name, known[0], known[1] if classes < 0 else classes)
    try:
        return data.load(config, "train")
    except ConfigError as error:
        if known:
            return _absent(config, name, known[0], known[1] if classes < 0 else classes)
        hint = near(name, PUBLIC)
        raise ConfigError(
            f"{error}; give --samples and --classes to plan without it{hint}"
        ) from None


def _absent(config: Any, name: str, samples: int, classes: int) -> Absent:
    if not config.size:
        raise ConfigError(
            "data.size: 0, as stored, and the data are not here; expected the size in pixels"
        )
    frames = (config.frames,) if config.frames else ()
    image = (*frames, config.size, config.size, config.channels or len(config.mean))
    fields = image_fields(image, labelled=bool(classes))
    return Absent(f"{name} train (not here)", samples, classes, fields)
