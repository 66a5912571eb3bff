"""Configs of runs of older versions, whose names have changed since."""

from typing import Any

RENAMED = {"joint_embedding": "composed", "masked_prediction": "composed"}  # methods


def current(tree: dict[str, Any]) -> dict[str, Any]:
    """A config that an older version wrote, with today's names of methods.

    >>> current({"method": "joint_embedding"}), current({"method": "mokd"})
    ({'method': 'composed'}, {'method': 'mokd'})
    """
    renamed = lambda fields: {k: RENAMED.get(v, v) if k == "method" else v for k, v in fields}
    found: dict[str, Any] = renamed(tree.items())
    if found.get("stages"):
        found["stages"] = [
            {**stage, "changes": renamed(stage["changes"].items())} if "changes" in stage else stage
            for stage in found["stages"]
        ]
    return found
