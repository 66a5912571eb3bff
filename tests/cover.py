"""Which experiments are compiled and run at every change: a cover of their parts, and a few more.

The cover is computed from the configs: greedily, the experiment that adds most parts comes next.
The few more are those whose file the last commit touches, and some chosen by the commit, so that
all come round. Losses are no parts here: each has tests of its own.
"""

import functools
import pathlib
import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set

from ml_collections import ConfigDict

import experiments
from jaxssl.bench.small import smooth

SIZE = 16  # of the cover
MORE = 2  # touched, or by the commit
SECTIONS = ("student", "teachers", "masks", "targets", "views")
# Fields whose value names a part, or says how parts are put together.
NAMING = (
    *("name", "rule", "source", "memory", "how", "norm", "pool", "batch_statistics"),
    *("tiles", "turns"),
)
# Fields that count as there or not: what they name is named by the config itself.
THERE = ("networks", "mask", "field", "param", "of", "table", "mixed", "artifact", "shares")


def parts(config: ConfigDict) -> set[str]:
    """What the last stage that trains is made of, which is the one that the tests run.

    Entries that the config names have no name here.
    """
    plan = experiments.plan(config)
    trained = [stage for stage in plan if stage.trains]
    last = trained[-1].config
    found = {
        f"method={last.method}",
        f"data.source={last.data.source}",
        f"stages={min(len(trained), 2)}",
        *(f"init_from, take={part}" for part in trained[-1].take),
        *(f"table={stage.make.name}" for stage in plan if stage.make),
        *_fields("encoder", last.encoder),
        *_fields("method_options", last.method_options),
        *(["streams"] if last.streams else []),
    }
    for section in SECTIONS:
        for entry in last[section].values():
            found |= set(_fields(section, entry))
    for term in last.losses.values():
        found |= {*_fields("losses", term), *_read_of(term, last.teachers)}
    return found


def _fields(place: str, section: ConfigDict) -> Iterator[str]:
    for field, value in section.items():
        here = f"{place}.{field}"
        if isinstance(value, ConfigDict):
            yield from _fields(here, value)
        if field in THERE:
            yield here
        elif field in NAMING:
            yield f"{here}={value}"


def _read_of(term: ConfigDict, teachers: ConfigDict) -> Iterator[str]:
    """Whose outputs a loss reads."""
    for argument in ("student", "teacher"):
        value = term.get(argument, "")
        if isinstance(value, str) and value:
            network, _, output = value.rpartition("/")
            whose = f"a {teachers[network].rule} teacher" if network in teachers else network
            yield f"losses.{argument} of {whose or 'the student'}"
            if ":" in output:
                yield f"losses.{argument} of one group of views"


def cover(parts_of: Mapping[str, Set[str]], size: int) -> list[str]:
    """At most `size` names that together have many parts: the one that adds most, again and again.

    >>> cover({"a": {1, 2}, "b": {2, 3, 4}, "c": {4}}, 3)
    ['b', 'a']
    """
    chosen: list[str] = []
    have: set[str] = set()
    while len(chosen) < size:
        added = {name: len(parts - have) for name, parts in sorted(parts_of.items())}
        best = max(added, key=lambda name: added[name])
        if not added[best]:
            break
        chosen.append(best)
        have |= parts_of[best]
    return chosen


def further(names: Sequence[str], touched: Sequence[str], commit: str, count: int) -> list[str]:
    """`count` of the names: those touched come first, the others are a function of the commit.

    >>> further("abcdef", ["d"], "1f49270", 3) == further("abcdef", ["d"], "1f49270", 3)
    True
    """
    first = [name for name in sorted(names) if name in touched]
    rest = [name for name in sorted(names) if name not in touched]
    draw = random.Random(commit)
    return [*draw.sample(first, len(first)), *draw.sample(rest, len(rest))][:count]


def _git(*words: str) -> str:
    """What git says of this checkout; nothing where there is none."""
    here = pathlib.Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


@functools.cache
def executed() -> frozenset[str]:
    """The experiments to compile and run in this checkout, the same ones in every process."""
    chosen = cover({name: parts(smooth(name)) for name in experiments.NAMES}, SIZE)
    rest = [name for name in experiments.NAMES if name not in chosen]
    changed = _git("diff", "--name-only", "HEAD~1").splitlines()
    touched = [pathlib.Path(file).stem for file in changed if file.startswith("experiments/")]
    return frozenset((*chosen, *further(rest, touched, _git("rev-parse", "HEAD"), MORE)))
