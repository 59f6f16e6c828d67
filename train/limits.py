"""What settings may be: words to choose from, and limits of numbers. Without torch."""

from train.architecture import ENCODERS
from train.policy import POLICIES

CHOICES = {
    "encoder": ENCODERS,
    "policy": POLICIES,
    "precision": ("bf16", "fp32"),
    "ibot_head": ("shared", "separate"),
    "targets": ("sinkhorn", "centre"),
    "neighbours": ("student", "teacher"),
    "kde_reduction": ("mean", "sum"),
}
PAIRS = (  # the first is not above the second
    ("mask_ratio_least", "mask_ratio_most"),
    ("local_scale_least", "local_scale_most"),
)
LIMITS = (  # a condition, its words, and the settings that must meet it
    (
        lambda v: v >= 1,
        "at least 1",
        "batch epoch_samples hidden projection log_every keep bottleneck prototypes local_crops "
        "local_px".split(),
    ),
    (
        lambda v: v > 0,
        "above 0",
        "epochs lr temperature checkpoint_every probe_every layer_decay clip student_temperature "
        "start_temperature teacher_temperature local_scale_least kappa".split(),
    ),
    (
        lambda v: v >= 0,
        "at least 0",
        "weight_decay warmup_epochs workers seed keep_every two_pass end_lr end_weight_decay "
        "patch_lr layer_scale freeze_last_epochs ibot_weight temperature_epochs global_weight "
        "koleo_weight kde_weight".split(),
    ),
    (
        lambda v: 0 <= v <= 1,
        "from 0 to 1",
        "momentum mask_probability mask_ratio_least mask_ratio_most local_scale_most".split(),
    ),
    (lambda v: 0 <= v < 1, "from 0 to below 1", ["drop_path"]),
)
