"""Random views of images, made on the device inside the jitted step.

`build` turns a config into a pure function of (key, batch); `evaluation_view` is the one without
randomness. `geometry` and `colour` are the formulas, `transforms` draws their parameters.
"""

from jaxssl.views.pipeline import MakeViews, build, evaluation_view, group_ids

__all__ = ["MakeViews", "build", "evaluation_view", "group_ids"]
