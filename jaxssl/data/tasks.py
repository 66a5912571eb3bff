"""Classes one after another, with replay of the past: which samples a step has is no state.

    config.data.tasks = dict(count=5, steps=200, replay=0.25)

Task t of T has the classes c with floor(c T / K) = t, and the steps t S ... t S + S - 1; the last
task goes on for ever. Of a batch of B samples of a later task, round(replay B) are of the classes
of all earlier ones, drawn anew at every step. Both are functions of (seed, step): nothing is kept,
and a run that is stopped and resumed replays what it would have replayed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxssl.config.errors import ConfigError
from jaxssl.data.order import fold_seed, permute
from jaxssl.data.part import Wrapper
from jaxssl.data.source import Array, Source
from jaxssl.modalities import parameters


@dataclasses.dataclass(frozen=True)
class Tasks:
    """`data.tasks`: how many (0: all classes at once), steps of each, share of replay."""

    count: int = parameters.count(0, 0)
    steps: int = parameters.count(0, 0)
    replay: float = parameters.number(0.0, 0.0, 1.0)


def parse(value: Any) -> Tasks:
    """The fields of `data.tasks`, checked.

    Raises:
      ConfigError: a field that does not fit.
    """
    tasks = parameters.parse(Tasks, "data.tasks", value)
    if tasks.count and not tasks.steps:
        raise ConfigError("data.tasks.steps: found 0, expected a whole number >= 1")
    return tasks


def task_of(labels: Array, count: int, num_classes: int) -> Array:
    """The task of each label, floor(c T / K).

    >>> task_of(np.arange(6), 2, 6).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return np.asarray(labels).astype(np.int64) * count // max(1, num_classes)


class InTasks(Wrapper):
    """A source whose classes come one after another.

    Args:
      whole: the source.
      tasks: how many, how long, and how much of the past is replayed.
      labels: [N], by which samples are of a task; -1 is of none.

    Raises:
      ConfigError: a task without samples.

    >>> from jaxssl.data.images import ArraySource
    >>> classes = np.arange(12) % 4
    >>> source = ArraySource("set", np.zeros((12, 4, 4), np.uint8), classes)
    >>> order = InTasks(source, Tasks(count=2, steps=3), classes).order(4, seed=0)
    >>> [sorted(set(classes[order[step]].tolist())) for step in (0, 2, 3, 9)]
    [[0, 1], [0, 1], [2, 3], [2, 3]]
    """

    def __init__(self, whole: Source, tasks: Tasks, labels: Array):
        self.tasks = tasks
        of_task = task_of(labels, tasks.count, whole.num_classes)
        self.members = [np.flatnonzero((of_task == t) & (labels >= 0)) for t in range(tasks.count)]
        if empty := [t for t, members in enumerate(self.members) if not len(members)]:
            raise ConfigError(
                f"data.tasks.count: {tasks.count}, but task {empty[0]} has no samples of the "
                f"{whole.num_classes} classes of {whole.name}"
            )
        name = f"{whole.name}, in {tasks.count} tasks"
        super().__init__(whole, name, f" {tasks}".encode())

    def order(self, global_batch: int, seed: int) -> "TaskOrder":
        """The sample ids of every step.

        Raises:
          ConfigError: a task with fewer samples than a batch has of it.
        """
        return TaskOrder(self.members, self.tasks, global_batch, seed)


class TaskOrder:
    """Element s is the sample ids [B] of step s, first the replayed ones."""

    def __init__(self, members: Sequence[Array], tasks: Tasks, global_batch: int, seed: int):
        self._members, self._tasks = members, tasks
        self._batch, self._seed = global_batch, seed
        self._replayed = round(tasks.replay * global_batch)
        for t, own in enumerate(members):
            past = sum(map(len, members[:t]))
            least, replayed = self._parts(t)
            if len(own) < least or (t and past < replayed):
                raise ConfigError(
                    f"data.tasks: task {t} has {len(own)} samples and {past} before it, expected "
                    f"at least {least} and {replayed} for a batch of {global_batch}"
                )

    def __len__(self) -> int:
        return 2**62

    def _parts(self, task: int) -> tuple[int, int]:
        """How many of a batch are of the task itself, and of earlier ones."""
        replayed = self._replayed if task else 0
        return self._batch - replayed, replayed

    def __getitem__(self, step: int) -> Array:
        task = min(int(step) // self._tasks.steps, len(self._members) - 1)
        own, replayed = self._parts(task)
        now = self._members[task]
        name, found = f"task {task}", []
        if replayed:
            past = np.concatenate(self._members[:task])
            seed = fold_seed(self._seed, "replay")
            found.append(past[permute(np.arange(replayed), len(past), seed, int(step))])
        if own:
            epoch, place = divmod(int(step) - task * self._tasks.steps, len(now) // own)
            places = place * own + np.arange(own)
            found.append(now[permute(places, len(now), fold_seed(self._seed, name), epoch)])
        return np.concatenate(found)

    def stand_in(self, step: int, place: int, turn: int) -> int | None:
        """None: a sample that cannot be read ends a run in tasks."""
        return None
