"""The methods by name, and the settings that belong to each, with their defaults.

Without torch: for --help and checks of settings. MoCo v3's are official moco-v3's (CONFIG.md) for
ViT-S. DINOv2's are dinov2's ssl_default_config.yaml, but for what is said here; the three recipes
are the rows of the paper's Table 6.
"""

MOCO = {
    "lr": 1.5e-4,
    "weight_decay": 0.1,
    "momentum": 0.99,
    "hidden": 4096,
    "temperature": 0.2,
    "projection": 256,
}
_DINO = {
    "lr": 4e-3,
    "weight_decay": 0.04,
    "momentum": 0.992,
    "hidden": 2048,
    "end_lr": 1e-6,
    "end_weight_decay": 0.4,
    "layer_decay": 0.9,
    "patch_lr": 0.2,
    "clip": 3.0,
    "layer_scale": 1e-5,
    "drop_path": 0.3,
    "bottleneck": 256,
    # dinov2: 65536, for 142 M images. With K beyond the views of a batch most prototypes get no
    # view of their own; 4096 is the paper's batch, and a sixteenth of the memory.
    "prototypes": 4096,
    "freeze_last_epochs": 1.0,
    "ibot_head": "shared",
    "ibot_weight": 1.0,
    "mask_probability": 0.5,
    "mask_ratio_least": 0.1,
    "mask_ratio_most": 0.5,
    # dinov2's long recipe, and DinoBloom's for cells; a running centre needs its many steps.
    "targets": "sinkhorn",
    "student_temperature": 0.1,
    "start_temperature": 0.04,
    "teacher_temperature": 0.07,
    "temperature_epochs": 30.0,
    # Only the student's embeddings have a gradient; its neighbours pull as hard as they are pushed.
    "neighbours": "student",
}
_LOCAL = {"local_crops": 8, "local_px": 24, "local_scale_least": 0.05, "local_scale_most": 0.32}
# The official sum of 2 global and max(2 * local, 1) local terms, with no local crops.
_NO_LOCAL = {"global_weight": 2 / 3}
_KOLEO = {"koleo_weight": 0.1}
_KDE = {
    "kde_weight": 0.05,
    "kappa": 5.0,
    # A pair with itself is a constant e^κ that damps the gradient, the more the smaller the batch.
    "self_pairs": False,
    # A sum over z would weigh 4096 times 0.05 against a cross-entropy of about 8.
    "kde_reduction": "mean",
}
RECIPES = {
    "moco": MOCO,
    "dinov2": _DINO | _LOCAL | _KOLEO,
    "dinov2-no-local": _DINO | _NO_LOCAL | _KOLEO,
    "dinov2-no-local-kde": _DINO | _NO_LOCAL | _KDE,
}


def owners(setting: str) -> list[str]:
    """Return the methods that a setting belongs to; none if it is every method's."""
    return [method for method, own in RECIPES.items() if setting in own]
