"""A new kind of data, and every kind of part, from a package of one's own: nobody edits this one.

`strokes_lib` is pen strokes, [T, 2] places of a pen; a config names all of its parts by dotted
names, and runs from the command line.
"""

import sys
import textwrap

import pytest

from jaxssl.config import load as configs
from jaxssl.config.errors import ConfigError
from jaxssl.main import main
from jaxssl.program import Program
from jaxssl.report.writers import read_json, read_metrics
from jaxssl.run.evaluator import Evaluator

PARTS = {
    "source": """
        import numpy as np
        from jaxssl.data.source import Arrays
        from jaxssl.method import Field

        STROKES = Field("strokes_lib.modality", (12, 2), "float32")

        def open(config, split):
            rng = np.random.default_rng(["train", "test"].index(split))
            labels = rng.permutation(np.arange(64) % 2)
            turns = np.linspace(0, np.pi, 12) * (1 + labels[:, None])  # half or all around
            x = np.stack([np.cos(turns), np.sin(turns)], -1) + 0.1 * rng.normal(size=(64, 12, 2))
            return Arrays(f"strokes {split}", {"pen": (STROKES, x.astype(np.float32))}, labels)
    """,
    "modality": """
        import jax
        import jax.numpy as jnp
        import numpy as np
        from jaxssl.config.errors import ConfigError

        def views(group, *, field, data, where):
            if unknown := set(group) - {"count", "shake"}:
                raise ConfigError(f"{where}: found {sorted(unknown)}, expected shake")
            def view(key, x):
                return x + group["shake"] * jax.random.normal(key, field.shape)
            return jax.vmap(jax.vmap(view, (0, None)))

        def plain(x, *, data, size=0):
            return x

        def raw(x):
            return x.reshape(len(x), -1)

        def show(x):
            grey = np.full((len(x), 8, 8, 1), 255, np.uint8)
            at = np.clip(np.round(2 * x + 4), 0, 7).astype(int)
            for picture, places in zip(grey, at):
                picture[places[:, 1], places[:, 0]] = 0
            return grey
    """,
    "turned": """
        import jax
        import jax.numpy as jnp

        def views(group, *, field, data, where):
            def view(key, x):
                a = jax.random.uniform(key, maxval=group["most"])
                return x @ jnp.array([[jnp.cos(a), -jnp.sin(a)], [jnp.sin(a), jnp.cos(a)]])
            return jax.vmap(jax.vmap(view, (0, None)))
    """,
    "encoder": """
        import flax.linen as nn

        class Pen(nn.Module):
            width: int

            @nn.compact
            def __call__(self, x, *, train, mask=None, keep=None, capture=()):
                x = x if mask is None else x * ~mask[..., None]
                y = nn.relu(nn.Dense(self.width, name="places")(x))
                return {"pooled": nn.Dense(self.width, name="whole")(y.mean(1)), "tokens": y}

        def build(*, width: int, dtype):
            return Pen(width)
    """,
    "head": """
        import flax.linen as nn

        class Scaled(nn.Module):
            width: int

            @nn.compact
            def __call__(self, x, *, train):
                return nn.Dense(self.width, name="out")(x)

        def build(*, width: int, dtype):
            return Scaled(width)
    """,
    "terms": """
        import jax.numpy as jnp

        def apart(student, *, earlier):
            return jnp.square(student - earlier.mean(0)).mean()

        def followed(student, target, *, mask):
            return (jnp.square(student - target).mean(-1) * mask).sum() / mask.sum()
    """,
    "memory": """
        import jax.numpy as jnp
        from jaxssl.memories import Memory

        def build(*, views, info, rows: int):
            def init(key, shape):
                return jnp.zeros((rows, shape[-1]))
            def update(state, seen):
                return jnp.concatenate([seen.stack.reshape(-1, state.shape[-1]), state])[:rows]
            return Memory(init, lambda state, seen: state, update)
    """,
    "mask": """
        import jax.numpy as jnp
        from jaxssl.masks import Mask

        def build(*, setting, last: int):
            def hide(given):
                hidden = jnp.arange(given.x.shape[2]) >= given.x.shape[2] - last
                return {"mask": jnp.broadcast_to(hidden, given.x.shape[:3])}
            return Mask(hide, ("mask",))
    """,
    "target": """
        from jaxssl.targets import Target

        def build(*, mean, std):
            return Target(lambda x: x)
    """,
    "maker": """
        import numpy as np
        from jaxssl.tables import sample_table

        def make(subject, source, *, every: int):
            return sample_table(source, np.arange(0, len(source), every), {})

        example = make
    """,
    "evaluator": """
        import numpy as np

        PROTOCOL = {"power": 2}

        def evaluate(train, test, *, num_classes, power):
            centers = np.stack([train.x[train.y == c].mean(0) for c in range(num_classes)])
            far = (np.abs(test.x[:, None] - centers) ** power).sum(-1)
            return {"accuracy": float((far.argmin(1) == test.y).mean())}
    """,
    "method": """
        from jaxssl.methods import composed

        def build(config, info):
            return composed.build(config, info)
    """,
}
CONFIG = """
from jaxssl.config import recipes

PRESETS = ("digits",)


def get_config(preset="digits"):
    config = recipes.base(preset)
    config.method = "strokes_lib.method"
    config.data.update(source="strokes_lib.source", size=0, mean=(0.0,), std=(1.0,))
    config.encoder = dict(name="strokes_lib.encoder", width=8)
    config.views = {
        "global": dict(count=2, shake=0.1),
        "turned": dict(name="strokes_lib.turned", count=1, most=0.5),
    }
    config.student.projector = dict(name="strokes_lib.head", width=4)
    config.student.places = dict(
        name="strokes_lib.head", width=2, reads="tokens", output="places"
    )
    config.masks.hidden = dict(name="strokes_lib.mask", views=("global",), last=3)
    config.targets.pen = dict(name="strokes_lib.target")
    config.losses.apart = dict(
        fn="strokes_lib.terms.apart", student="projection", pairs="single",
        earlier=dict(memory="strokes_lib.memory", rows=48),
    )
    config.losses.followed = dict(
        fn="strokes_lib.terms.followed", student="places:global", teacher="input/pen:global",
        pairs="same", mask=dict(mask="hidden"),
    )
    config.train.update(steps=4, global_batch=16)
    config.evals.update(bank=0, batch_size=32)
    for other in ("knn", "linear", "fewshot", "pretext"):
        config.evals[other] = None
    with config.evals.unlocked():
        config.evals.nearest_mean = dict(name="strokes_lib.evaluator", power=1)
    config.report.update(every_steps=1, samples=4)
    config.stages = (
        dict(name="half", make=dict(name="strokes_lib.maker", every=2)),
        dict(name="trained", changes={"data.part": "half"}),
    )
    return config
"""


@pytest.fixture(scope="module")
def strokes(tmp_path_factory):
    """The config file, with the package beside it where Python finds it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "strokes_lib").mkdir()
    (folder / "strokes_lib" / "__init__.py").touch()
    for name, text in PARTS.items():
        (folder / "strokes_lib" / f"{name}.py").write_text(textwrap.dedent(text))
    (folder / "strokes.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder / "strokes.py"
    for name in [name for name in sys.modules if name.startswith("strokes_lib")]:
        del sys.modules[name]


def test_a_config_of_parts_from_elsewhere_trains_and_is_evaluated(strokes, tmp_path):
    assert main([f"--config={strokes}", f"--workdir={tmp_path / 'run'}"]) == 0
    rows = read_metrics(tmp_path / "run" / "1-trained" / "metrics.jsonl")
    assert rows[-1]["step"] == 4 and {"train/apart", "train/followed"} <= set(rows[0])
    summary = read_json(tmp_path / "run" / "1-trained" / "summary.json")
    accuracy = summary["evals"]["nearest_mean/accuracy"]
    assert set(accuracy) >= {"trained", "random_init", "raw_input"}
    assert accuracy["trained"] > 0.9  # half around or all is plain to see


def test_a_kind_that_is_none_is_refused_with_the_near_name(strokes, monkeypatch):
    import strokes_lib.source

    kind = strokes_lib.source.STROKES._replace(kind="serie")
    monkeypatch.setattr(strokes_lib.source, "STROKES", kind)
    with pytest.raises(ConfigError, match=r"'pen' is of kind 'serie'; did you mean 'series'"):
        Program(configs.load(str(strokes)))


def test_every_part_is_the_one_of_the_package(strokes):
    program = Program(configs.load(str(strokes)))
    Evaluator(program)
    used = {name for name in sys.modules if name.startswith("strokes_lib.")}
    # All but the maker, which its own stage reads.
    assert used >= {f"strokes_lib.{name}" for name in PARTS if name != "maker"}
    assert set(program.info.fields) >= {"pen", "index", "label"}


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"losses.apart.fn": "strokes_lib.terms.apar"}, r"losses\.apart\.fn: found .*a function"),
        ({"losses.apart.fn": "strokes_lob.terms.apart"}, r"losses\.apart\.fn: found .*imported"),
        ({"losses.apart.fn": "biol"}, r"losses\.apart\.fn: found 'biol', expected a loss"),
        ({"evals.nearest_mean.name": "strokes_lib.maker"}, r"evals\.nearest_mean\.name: found"),
        (
            {"evals.nearest_mean.powr": 1},
            r"evals\.nearest_mean\.powr: .*mean 'evals\.nearest_mean\.power'",
        ),
        ({"views.turned.name": "strokes_lib.head"}, r"views\.turned\.name: found"),
        ({"views.global.wobble": 1}, r"views\.global: found \['wobble'\], expected shake"),
        ({"data.source": "strokes_lib.sauce"}, r"data\.source: found 'strokes_lib\.sauce'"),
    ],
)
def test_a_part_that_is_not_there_is_refused_in_one_line(strokes, changes, line):
    with pytest.raises(ConfigError, match=line) as caught:
        config = configs.merged(configs.load(str(strokes)), changes)
        Evaluator(Program(config))
    assert "\n" not in str(caught.value)
