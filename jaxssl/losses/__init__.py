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

from jaxssl.losses.adversarial import (
    fooling_error,
    telling_error,
)
from jaxssl.losses.bags import (
    bag_divergence,
    bag_of_words,
    bag_perplexity,
    sampled_words,
    word_distances,
)
from jaxssl.losses.boxes import (
    box_matching,
    giou,
)
from jaxssl.losses.classification import (
    kl_divergence,
    label_smoothing_cross_entropy,
)
from jaxssl.losses.clustering import (
    cluster_cross_entropy,
    sinkhorn,
    swav,
)
from jaxssl.losses.combine import (
    masked_mean,
    over_pairs,
    over_views,
    scheduled,
    sum_of,
    weighted,
)
from jaxssl.losses.consistency import (
    mean_teacher,
    mixmatch_consistency,
    mixmatch_targets,
    tsa_threshold,
    uda_consistency,
    uda_supervised,
    vat,
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
from jaxssl.losses.curriculum import (
    curriculum_selection,
    self_paced_weights,
)
from jaxssl.losses.dense import dice
from jaxssl.losses.distillation import (
    dino,
    ibot,
    koleo,
    msn,
    sinkhorn_dino,
    sinkhorn_ibot,
)
from jaxssl.losses.feature_distillation import (
    attention_transfer,
    chunk_mse,
    explanation_cosine,
    hint,
    nd,
    nst,
    running_standardisation,
    unic_distance,
    vid,
)
from jaxssl.losses.feature_search import search_distillation
from jaxssl.losses.focal import (
    gaussian_focal,
    quality_focal,
    sigmoid_focal,
)
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
from jaxssl.losses.keypoints import (
    heatmap_cross_entropy,
    introspection,
    keypoint_mse,
)
from jaxssl.losses.language import (
    forward_kl,
    generalized_jsd,
    reverse_kl,
    self_evolution_kd,
    skd_accept,
    token_nll,
)
from jaxssl.losses.latent import (
    data2vec,
    dbot,
    feature_matching,
    ijepa,
    masked_cross_entropy,
    point2vec,
    smooth_l1,
)
from jaxssl.losses.logit_distillation import (
    dist,
    dkd,
    kd,
    lelp_targets,
    ps_kd,
    sla,
    teacher_dropping,
)
from jaxssl.losses.mining import mine_neighbors
from jaxssl.losses.pairs import (
    density_ratio,
    pair_error,
)
from jaxssl.losses.points import (
    chamfer,
    farthest_points,
    knn_groups,
)
from jaxssl.losses.preference import (
    dpo,
    grpo,
    grpo_advantages,
)
from jaxssl.losses.pretext import (
    colorization,
    rebalancing_weights,
    relative_location,
    view_index,
    weighted_cross_entropy,
)
from jaxssl.losses.pseudo_labels import (
    fixmatch,
    flexmatch,
    freematch,
    freematch_fairness,
    softmatch,
)
from jaxssl.losses.quantization import (
    codebook_diversity,
    codebook_ema,
    gumbel_quantize,
    vector_quantize,
)
from jaxssl.losses.ranking import (
    adaptive_relevance_margin,
    bpr,
    dcd,
    margin_mse,
    sampled_softmax,
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
from jaxssl.losses.relation_distillation import (
    correlation_congruence,
    crd,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from jaxssl.losses.relations import relation_pairs
from jaxssl.losses.self_training import (
    entropy_minimisation,
    generalized_cross_entropy,
    rpl,
    t_similarity,
)
from jaxssl.losses.sequence import ctc
from jaxssl.losses.series import (
    isoalign,
    ts2vec,
    ts_tcc_contextual,
    ts_tcc_temporal,
)
from jaxssl.losses.spanning_tree import (
    minimum_spanning_tree,
    soft_sphere,
    tree_length_regularizer,
)
from jaxssl.losses.speech import (
    apc,
    cpc,
    dinosr,
    hubert,
    wav2vec2_contrastive,
)
from jaxssl.losses.variational import (
    cosine_denoising,
    cosine_divergence,
    gaussian_denoising,
    gaussian_kl,
)
from jaxssl.losses.whitening import (
    w_mse,
    whiten,
)

# Metrics are no losses, and are no choice for a term of one; they can be had here by name.
from jaxssl.metrics import average_precision as average_precision
from jaxssl.metrics import mean_iou as mean_iou
from jaxssl.metrics import mean_reciprocal_rank as mean_reciprocal_rank
from jaxssl.metrics import ndcg as ndcg
from jaxssl.metrics import pck as pck
from jaxssl.metrics import recall_at_k as recall_at_k

# fmt: off
__all__ = [
    "adaptive_relevance_margin", "anderson_darling", "apc", "attention_transfer", "bag_divergence",
    "bag_of_words", "bag_perplexity", "barlow_twins", "box_matching", "bpr", "byol", "chamfer",
    "chunk_mse", "cluster_cross_entropy", "codebook_diversity", "codebook_ema", "colorization",
    "correlation_congruence", "cosine_denoising", "cosine_divergence", "cpc", "cramer_von_mises",
    "crd", "ctc", "curriculum_selection", "data2vec", "dbot", "dcd", "decoupled_contrastive",
    "density_ratio", "dice", "dino", "dinosr", "dist", "dkd", "dpo", "entropy_minimisation",
    "epps_pulley", "explanation_cosine", "extended_jarque_bera", "farthest_points",
    "feature_matching", "fixmatch", "flexmatch", "fooling_error", "forward_kl", "freematch",
    "freematch_fairness", "gaussian_denoising", "gaussian_focal", "gaussian_kl",
    "generalized_cross_entropy", "generalized_jsd", "giou", "grpo", "grpo_advantages",
    "gumbel_quantize", "half_line_knots", "heatmap_cross_entropy", "hint", "hubert", "ibot",
    "ijepa", "info_nce_queue", "inpainting_error", "instance_discrimination", "instance_nce",
    "introspection", "isoalign", "kd", "keypoint_mse", "kl_divergence", "knn_groups", "koleo",
    "label_smoothing_cross_entropy", "lejepa_prediction", "lelp_targets", "low_bias_uniformity",
    "mae", "margin_mse", "masked_cross_entropy", "masked_mean", "masked_squared_error",
    "mean_teacher", "mine_neighbors", "minimum_spanning_tree", "mixed_cross_correlation",
    "mixmatch_consistency", "mixmatch_targets", "mmcr", "moco_v3", "msn", "nd", "nnclr", "nst",
    "nt_xent", "over_pairs", "over_views", "pair_error", "pkt", "point2vec", "ps_kd",
    "quality_focal", "random_directions", "rebalancing_weights", "relation_pairs",
    "relational_consistency", "relative_location", "reverse_kl", "rkd_angle", "rkd_distance", "rpl",
    "running_standardisation", "sampled_softmax", "sampled_words", "scheduled",
    "search_distillation", "self_evolution_kd", "self_paced_weights", "sigmoid_focal", "sigreg",
    "similarity_preserving", "simmim", "simsiam", "sinkhorn", "sinkhorn_dino", "sinkhorn_ibot",
    "skd_accept", "sla", "sliced", "sliced_anderson_darling", "sliced_cramer_von_mises",
    "sliced_jarque_bera", "sliced_vcreg", "sliced_watson", "smooth_l1", "soft_sphere", "softmatch",
    "split_error", "squared_distance", "sum_of", "swav", "t_similarity", "teacher_dropping",
    "telling_error", "tico", "token_nll", "tree_length_regularizer", "ts2vec", "ts_tcc_contextual",
    "ts_tcc_temporal", "tsa_threshold", "uda_consistency", "uda_supervised", "unic_distance", "vat",
    "vcreg", "vector_quantize", "vicreg", "vid", "view_index", "view_mean_prediction", "w_mse",
    "watson", "wav2vec2_contrastive", "weighted", "weighted_cross_entropy", "whiten",
    "word_distances",
]
# fmt: on
