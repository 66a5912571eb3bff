"""Where the public names of `jaxssl.losses` lie; each is imported once it is asked for."""

import jaxssl.metrics as _metrics

from .adversarial import (
    fooling_error,
    telling_error,
)
from .bags import (
    bag_divergence,
    bag_of_words,
    bag_perplexity,
    sampled_words,
    word_distances,
)
from .boxes import (
    box_matching,
    giou,
)
from .classification import (
    kl_divergence,
    label_smoothing_cross_entropy,
)
from .clustering import (
    cluster_cross_entropy,
    sinkhorn,
    swav,
)
from .combine import (
    masked_mean,
    over_pairs,
    over_views,
    scheduled,
    sum_of,
    weighted,
)
from .consistency import (
    mean_teacher,
    mixmatch_consistency,
    mixmatch_targets,
    tsa_threshold,
    uda_consistency,
    uda_supervised,
    vat,
)
from .contrastive import (
    decoupled_contrastive,
    info_nce_queue,
    instance_discrimination,
    instance_nce,
    moco_v3,
    nnclr,
    nt_xent,
    relational_consistency,
)
from .curriculum import (
    curriculum_selection,
    self_paced_weights,
)
from .dense import dice
from .distillation import (
    dino,
    ibot,
    koleo,
    msn,
    sinkhorn_dino,
    sinkhorn_ibot,
)
from .feature_distillation import (
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
from .feature_search import search_distillation
from .focal import (
    gaussian_focal,
    quality_focal,
    sigmoid_focal,
)
from .gaussian import (
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
from .keypoints import (
    heatmap_cross_entropy,
    introspection,
    keypoint_mse,
)
from .language import (
    forward_kl,
    generalized_jsd,
    reverse_kl,
    self_evolution_kd,
    skd_accept,
    token_nll,
)
from .latent import (
    data2vec,
    dbot,
    feature_matching,
    ijepa,
    masked_cross_entropy,
    point2vec,
    smooth_l1,
)
from .logit_distillation import (
    dist,
    dkd,
    kd,
    lelp_targets,
    ps_kd,
    sla,
    teacher_dropping,
)
from .mining import mine_neighbors
from .pairs import (
    density_ratio,
    pair_error,
)
from .points import (
    chamfer,
    farthest_points,
    knn_groups,
)
from .preference import (
    dpo,
    grpo,
    grpo_advantages,
)
from .pretext import (
    colorization,
    rebalancing_weights,
    relative_location,
    view_index,
    weighted_cross_entropy,
)
from .pseudo_labels import (
    fixmatch,
    flexmatch,
    freematch,
    freematch_fairness,
    softmatch,
)
from .quantization import (
    codebook_diversity,
    codebook_ema,
    gumbel_quantize,
    vector_quantize,
)
from .ranking import (
    adaptive_relevance_margin,
    bpr,
    dcd,
    margin_mse,
    sampled_softmax,
)
from .reconstruction import (
    inpainting_error,
    mae,
    masked_squared_error,
    simmim,
    split_error,
)
from .redundancy import (
    barlow_twins,
    mixed_cross_correlation,
    mmcr,
    squared_distance,
    tico,
    vicreg,
)
from .regression import (
    byol,
    lejepa_prediction,
    low_bias_uniformity,
    simsiam,
    view_mean_prediction,
)
from .relation_distillation import (
    correlation_congruence,
    crd,
    pkt,
    rkd_angle,
    rkd_distance,
    similarity_preserving,
)
from .relations import relation_pairs
from .self_training import (
    entropy_minimisation,
    generalized_cross_entropy,
    rpl,
    t_similarity,
)
from .sequence import ctc
from .series import (
    isoalign,
    ts2vec,
    ts_tcc_contextual,
    ts_tcc_temporal,
)
from .spanning_tree import (
    minimum_spanning_tree,
    soft_sphere,
    tree_length_regularizer,
)
from .speech import (
    apc,
    cpc,
    dinosr,
    hubert,
    wav2vec2_contrastive,
)
from .variational import (
    cosine_denoising,
    cosine_divergence,
    gaussian_denoising,
    gaussian_kl,
)
from .whitening import (
    w_mse,
    whiten,
)

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

average_precision = _metrics.average_precision
mean_iou = _metrics.mean_iou
mean_reciprocal_rank = _metrics.mean_reciprocal_rank
ndcg = _metrics.ndcg
pck = _metrics.pck
recall_at_k = _metrics.recall_at_k
