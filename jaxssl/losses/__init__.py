"""Losses: pure functions of arrays on the global batch, in float32, and combinators of them.

They stand alone, with no config, no training loop and no word about devices: under `jax.jit` over a
mesh the compiler splits them, and one device or a thousand give the same value and gradient.

A combinator takes losses and gives a loss:

| combinator | gives |
|---|---|
| `weighted(fn, w)` | w fn |
| `scheduled(fn, schedule)` | schedule(step) fn, called with `step=` |
| `over_views(fn)` | the mean over the leading axis of fn(z[v], ...) |
| `over_pairs(fn, pairs)` | the mean of fn(student[u], target[v], ...) over pairs of views |
| `sliced(test)` | the mean over directions of a univariate test of (z, directions) |
| `sum_of(**fns)` | the sum, and each term by its name |

`sliced_watson`, `sliced_vcreg`, ... are `sliced` of the tests of those names; `sigreg` is that of
`epps_pulley`. `masked_mean(values, mask)` divides once, by the weight of the whole batch.

LeJEPA's loss of projections [V, B, P] with two global views:

>>> import jax
>>> from jaxssl import losses
>>> lejepa = losses.sum_of(
...     prediction=losses.weighted(
...         lambda z, directions: losses.lejepa_prediction(z, num_global=2), 1 - 0.05),
...     sigreg=losses.weighted(losses.over_views(losses.sigreg), 0.05),
... )
>>> z = jax.random.normal(jax.random.key(0), (4, 32, 8))
>>> total, terms = lejepa(z, losses.random_directions(jax.random.key(1), 8, 64))
>>> sorted(terms)
['prediction', 'sigreg']

Published implementations of one loss often differ by a factor. Each module says which form it has,
and by how much others differ; those that trip people up most, with ours first:

| loss | here | elsewhere |
|---|---|---|
| `nt_xent` (SimCLR) | the mean over 2 B anchors | the sum of two means: twice as much |
| `moco_v3` | times 2 τ | without: a gradient 1 / (2 τ) as large |
| `vicreg` | variance terms averaged, covariance terms summed | variance summed: twice |
| `barlow_twins` | biased standard deviation | unbiased: C_ii = (B - 1) / B for equal views |
| `byol` | 2 - 2 cos, one direction | both directions summed: twice |
| `dino`, `swav` | the mean over pairs of views | their sum |
| `koleo`, `msn` | the mean over samples and views | summed over views |
| `sigreg` (LeJEPA) | one test per view, then the mean | one test of all V B: another loss |
| `sigreg` | knots on [0, 3], weights doubled | a trapezoid on [-5, 5]: 1 to 2 % more |
| `sigreg` | N, the global batch | the batch of one device |
| LeJEPA's weights | (1 - λ, λ) | prediction + λ sigreg: λ does not carry over |
| `lejepa_prediction` | the mean over P | the squared norm: P times as much |
| `mae`, `dbot` | the unbiased variance in targets | biased: targets sqrt(D / (D - 1)) as large |
| `masked_squared_error` | the sum over channels | the mean, as in `mae`: 1 / D as much |
| `feature_matching` | the sum over D | the mean over D: 1 / D as much |
| `ijepa` | smooth L1, as its code | the squared distance, as its text |
| `ibot`, `sinkhorn_ibot` | the mean over an image's masks first | over all masked patches at once |
| `kd` | the sum over classes, times T^2 | the mean: 1 / K; the language losses without T^2 |
| `fixmatch` and its kin, `uda_consistency` | the mean over all samples | over those that count |
| `mixmatch_consistency`, `mean_teacher` | the mean over classes | the sum: K times as much |
| `cpc` | scores a mean over D, the mean over steps | dot products; the sum over steps |
| `sinkhorn_dino` | the rows of all views balanced together | each view apart, as in `swav` |
"""

import importlib
from typing import Any

import lazy_loader

# Names and modules are in `__init__.pyi`: a program imports the losses that it names.
_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# Metrics are no losses, and are no choice for a term of one; they can be had here by name.
METRICS = ("average_precision", "mean_iou", "mean_reciprocal_rank", "ndcg", "pck", "recall_at_k")


def __getattr__(name: str) -> Any:
    if name in METRICS:
        return getattr(importlib.import_module("jaxssl.metrics"), name)
    return _lazy(name)
