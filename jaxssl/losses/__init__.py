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
| `sinkhorn_dino` | the rows of all views balanced together | each view apart, as in `swav` |
"""

from jaxssl.losses.adversarial import fooling_error, telling_error
from jaxssl.losses.bags import (
    bag_divergence,
    bag_of_words,
    bag_perplexity,
    sampled_words,
    word_distances,
)
from jaxssl.losses.classification import kl_divergence, label_smoothing_cross_entropy
from jaxssl.losses.clustering import cluster_cross_entropy, sinkhorn, swav
from jaxssl.losses.combine import (
    masked_mean,
    over_pairs,
    over_views,
    scheduled,
    sum_of,
    weighted,
)
from jaxssl.losses.contrastive import (
    decoupled_contrastive,
    info_nce_queue,
    instance_discrimination,
    instance_nce,
    moco_v3,
    nnclr,
    nt_xent,
    relational_consistency,
)
from jaxssl.losses.distillation import dino, ibot, koleo, msn, sinkhorn_dino, sinkhorn_ibot
from jaxssl.losses.feature_search import search_distillation
from jaxssl.losses.gaussian import (
    anderson_darling,
    cramer_von_mises,
    epps_pulley,
    extended_jarque_bera,
    half_line_knots,
    random_directions,
    sigreg,
    sliced,
    sliced_anderson_darling,
    sliced_cramer_von_mises,
    sliced_jarque_bera,
    sliced_vcreg,
    sliced_watson,
    vcreg,
    watson,
)
from jaxssl.losses.latent import (
    data2vec,
    dbot,
    feature_matching,
    ijepa,
    masked_cross_entropy,
    smooth_l1,
)
from jaxssl.losses.mining import mine_neighbors
from jaxssl.losses.pairs import density_ratio, pair_error
from jaxssl.losses.pretext import (
    colorization,
    rebalancing_weights,
    relative_location,
    view_index,
    weighted_cross_entropy,
)
from jaxssl.losses.reconstruction import (
    inpainting_error,
    mae,
    masked_squared_error,
    simmim,
    split_error,
)
from jaxssl.losses.redundancy import (
    barlow_twins,
    mixed_cross_correlation,
    mmcr,
    squared_distance,
    tico,
    vicreg,
)
from jaxssl.losses.regression import (
    byol,
    lejepa_prediction,
    low_bias_uniformity,
    simsiam,
    view_mean_prediction,
)
from jaxssl.losses.relations import focal_binary_cross_entropy, relation_pairs
from jaxssl.losses.spanning_tree import (
    minimum_spanning_tree,
    soft_sphere,
    tree_length_regularizer,
)
from jaxssl.losses.variational import (
    cosine_denoising,
    cosine_divergence,
    gaussian_denoising,
    gaussian_kl,
)
from jaxssl.losses.whitening import w_mse, whiten

__all__ = [
    "anderson_darling",
    "bag_divergence",
    "bag_of_words",
    "bag_perplexity",
    "barlow_twins",
    "byol",
    "cluster_cross_entropy",
    "colorization",
    "cosine_denoising",
    "cosine_divergence",
    "cramer_von_mises",
    "data2vec",
    "dbot",
    "decoupled_contrastive",
    "density_ratio",
    "dino",
    "epps_pulley",
    "extended_jarque_bera",
    "feature_matching",
    "focal_binary_cross_entropy",
    "fooling_error",
    "gaussian_denoising",
    "gaussian_kl",
    "half_line_knots",
    "ibot",
    "ijepa",
    "info_nce_queue",
    "inpainting_error",
    "instance_discrimination",
    "instance_nce",
    "kl_divergence",
    "koleo",
    "label_smoothing_cross_entropy",
    "lejepa_prediction",
    "low_bias_uniformity",
    "mae",
    "masked_cross_entropy",
    "masked_mean",
    "masked_squared_error",
    "mine_neighbors",
    "minimum_spanning_tree",
    "mixed_cross_correlation",
    "mmcr",
    "moco_v3",
    "msn",
    "nnclr",
    "nt_xent",
    "over_pairs",
    "over_views",
    "pair_error",
    "random_directions",
    "rebalancing_weights",
    "relation_pairs",
    "relational_consistency",
    "relative_location",
    "sampled_words",
    "scheduled",
    "search_distillation",
    "sigreg",
    "simmim",
    "simsiam",
    "sinkhorn",
    "sinkhorn_dino",
    "sinkhorn_ibot",
    "sliced",
    "sliced_anderson_darling",
    "sliced_cramer_von_mises",
    "sliced_jarque_bera",
    "sliced_vcreg",
    "sliced_watson",
    "smooth_l1",
    "soft_sphere",
    "split_error",
    "squared_distance",
    "sum_of",
    "swav",
    "telling_error",
    "tico",
    "tree_length_regularizer",
    "vcreg",
    "vicreg",
    "view_index",
    "view_mean_prediction",
    "w_mse",
    "watson",
    "weighted",
    "weighted_cross_entropy",
    "whiten",
    "word_distances",
]
