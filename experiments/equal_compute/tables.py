"""The tables of a comparison: which experiments share one, and what each run may spend."""

import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxssl.config import load as configs
from jaxssl.config import recipes
from jaxssl.config.errors import ConfigError, near
from jaxssl.config.recipes import vision
from jaxssl.run import stages

PRESET = "cifar10"  # the scale at which methods are compared
# Of a small vision transformer, what says how much it computes.
SIZE = ("name", "width", "depth", "heads", "patch")


class Table(NamedTuple):
    """Experiments that are compared with each other, at one budget.

    Attributes:
      name: of the table and of its record.
      what: whose runs these are, for the text.
      unit: in which a budget is counted: "views" that enter an encoder, or "GFLOP" of whole steps.
      budget: of a run.
      encoder: fields of the encoder that its experiments share.
      overrides: `--config.key=value` of every run.
      rate: the learning rate that takes the place of the preset's own, in the run and in its
        stages; () leaves it.
    """

    name: str
    what: str
    unit: str
    budget: float
    encoder: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    rate: tuple[Any, ...] = ()

    @property
    def record(self) -> pathlib.Path:
        """Where its runs are on record, below the project."""
        return pathlib.Path("experiments") / "records" / f"{self.name}.json"

    @property
    def figure(self) -> pathlib.Path:
        """Its picture."""
        return pathlib.Path(".github") / f"{self.name}.svg"

    def spent(self, amount: float) -> str:
        """An amount of its unit in words.

        >>> TABLES["comparison"].spent(300_000)
        '300,000 encoded views'
        """
        return f"{amount:,.0f} {'encoded views' if self.unit == 'views' else self.unit}"

    def shares(self, config: Any) -> bool:
        """Whether a config has the encoder that the table's experiments share."""
        fields = config.encoder.to_dict()
        return all(fields.get(name) == value for name, value in self.encoder.items())

    @staticmethod
    def has_own_data(config: Any) -> bool:
        """Whether what a config leaves is judged on other data than the preset's."""
        last = stages.resolve(config, pathlib.Path())[-1].config
        usual = recipes.base(PRESET).data
        return (last.data.source, last.data.path) != (usual.source, usual.path)


def _vit() -> Mapping[str, Any]:
    """A size that a config shares, whatever else it asks of its vision transformer."""
    fields = {"name": "vit", **vision.SMALL_VITS[PRESET]}
    return MappingProxyType({name: fields[name] for name in SIZE})


def _convnet() -> Mapping[str, Any]:
    return MappingProxyType(recipes.base(PRESET).encoder.to_dict())


# The presets take batches for runs ten times as long. What follows a moving average needs steps.
MANY_STEPS = ("--config.train.global_batch=64",)
SMALL_BATCH = ("warmup_cosine", 1e-3, 20, 1e-6)
# Methods that hide patches need patches to hide: they are compared on the same vision transformer,
# and by arithmetic, since decoders and patches left out make views cost more or less.
TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table("comparison", "methods on a convolutional network", "views", 300_000, _convnet()),
        Table(
            "comparison_vit",
            "methods on a vision transformer",
            "GFLOP",
            24_000,
            _vit(),
            MANY_STEPS,
            SMALL_BATCH,
        ),
    )
}
DEFAULT = "comparison"


def find(name: str) -> Table:
    """The table of a name.

    Raises:
      ConfigError: none.
    """
    if name not in TABLES:
        raise ConfigError(f"--table: no {name!r}{near(name, TABLES)}")
    return TABLES[name]


def load(file: pathlib.Path | str) -> Any:
    """An experiment's config at the scale of the comparison, with its table's overrides.

    Args:
      file: of the experiment, without a preset.

    Raises:
      ConfigError: the config cannot be loaded.
    """
    spec = f"{file}:{PRESET}"
    table = of(configs.load(spec))
    config = configs.load(spec, table.overrides)
    if not table.rate:
        return config
    old = recipes.base(PRESET).optimizer.learning_rate
    rate, plan = _replaced((config.optimizer.learning_rate, config.stages), old, table.rate)
    return configs.merged(config, {"optimizer.learning_rate": rate, "stages": plan})


def recipe(config: Any) -> str:
    """A short hash of all that moves a parameter in the run of a config."""
    if not config.stages:
        return configs.fingerprint(configs.to_dict(config))
    parts = [
        (
            configs.fingerprint(configs.to_dict(stage.config)),
            *((stage.init_from, stage.take) if not stage.make else stage.make.described()),
        )
        for stage in stages.resolve(config, pathlib.Path())
    ]
    return configs.fingerprint({"stages": parts})


def _replaced(tree: Any, old: Any, new: Any) -> Any:
    """Nested tuples and mappings with `new` wherever `old` stands."""
    if tree == old:
        return new
    if isinstance(tree, tuple):
        return tuple(_replaced(entry, old, new) for entry in tree)
    if isinstance(tree, Mapping):
        return {name: _replaced(entry, old, new) for name, entry in tree.items()}
    return tree


def of(config: Any) -> Table:
    """The table that a config belongs to: that of its encoder, else the first."""
    vit = TABLES["comparison_vit"]
    return vit if vit.shares(config) else TABLES[DEFAULT]
