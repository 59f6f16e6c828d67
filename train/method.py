"""What the loop asks of a method: its networks, optimiser, views, and what a step is given."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from shards.schema import VIEW_PX
from train import schedule
from train.config import Config
from train.dino import DINO, Step
from train.encoder import build_encoder
from train.flops import forward_flops, training_flops
from train.mask import draw_kept, draw_masks
from train.moco import MoCo
from train.policy import Policy

PATCH_PX = 8


class MocoMethod:
    """MoCo v3: one rate for everything, the teacher moved within the step."""

    travels = "student"  # the encoder that goes out (moco-v3, main_lincls.py)
    views = 2

    def __init__(self, config: Config):
        self.config = config

    def build(self) -> MoCo:
        """Build the networks; their weights are a function of the seed alone."""
        config = self.config
        encoder = build_encoder(config.encoder, seed=config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return MoCo(encoder, config.temperature, config.hidden, config.projection)

    def groups(self, model: MoCo) -> list[dict]:
        """Return AdamW's groups of parameters."""
        return [{"params": [p for p in model.parameters() if p.requires_grad]}]

    def local_policy(self, policy: Policy) -> None:
        """Return how local crops are drawn: there are none."""

    def schedule(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Set the optimiser for a step; return the values that change with steps."""
        c = self.config
        lr = schedule.learning_rate(step, c.steps, c.warmup_steps, c.peak_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return {"lr": lr, "momentum": schedule.momentum(step, c.steps, c.momentum)}

    def argument(
        self, step: int, rows: range, values: dict[str, float], local: Tensor | None
    ) -> float:
        """Return what the model's forward takes beside the views."""
        return values["momentum"]

    @property
    def settled(self) -> float:
        """Steps after which the collapse watch looks."""
        return self.config.warmup_steps

    def clip(self, model: MoCo) -> None:
        """Leave the gradients as they are."""

    def finish(self, model: MoCo, values: dict[str, float]) -> None:
        """Do what follows the optimiser's step: nothing."""

    def flops(self, model: MoCo) -> int:
        """Return the floating-point operations of a step for one image of its batch."""
        heads = (*model.projector.parameters(), *model.predictor.parameters())
        weights = sum(p.numel() for p in heads if p.ndim == 2)
        return training_flops(model.teacher_encoder, VIEW_PX, weights)

    def describe(self, ranks: int) -> tuple[str, str]:
        """Return a word and a phrase on what an image is compared with."""
        return "negatives", f"{self.config.batch - 1} a query, gathered from {ranks} ranks"


class DinoMethod:
    """DINOv2: rates by layer, decay by schedule, gradients clipped, the teacher moved after."""

    travels = "teacher"  # (dinov2, train/train.py, do_test)

    def __init__(self, config: Config):
        self.config = config
        self.views = 2 + (config.local_crops or 0)

    def build(self) -> DINO:
        """Build the networks; their weights are a function of the seed alone."""
        config = self.config
        encoder = build_encoder(
            config.encoder, seed=config.seed, kind="dinov2", layer_scale=config.layer_scale
        )
        self.depth = len(encoder.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return DINO(encoder, config)

    def groups(self, model: DINO) -> list[dict]:
        """Return AdamW's groups of parameters, with their shares of rate and decay.

        Source: dinov2, utils/param_groups.py. Layer l of L has decay ** (L + 1 - l) of the rate,
        the embeddings being layer 0, the patch embedding a share of that; biases, norms and layer
        scales do not decay.
        """
        config, depth = self.config, len(model.encoder.blocks)
        groups: dict[tuple, list] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = depth + 1
            if name.startswith("encoder.blocks."):
                layer = int(name.split(".")[2]) + 1
            elif name == "mask_token" or (name.startswith("encoder.") and ".norm." not in name):
                layer = 0
            rate = config.layer_decay ** (depth + 1 - layer)
            rate *= config.patch_lr if "patch_embed" in name else 1
            decays = not (name.endswith(".bias") or "norm" in name or "gamma" in name)
            key = (rate, float(decays), "last_layer" in name)
            groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "rate": rate, "decay": decay, "last": last}
            for (rate, decay, last), parameters in groups.items()
        ]

    def local_policy(self, policy: Policy) -> Policy | None:
        """Return how local crops are drawn, or None if there are none.

        Paper leaves open: their augmentation; here: the global views' colours, dinov2's blur of a
        half, and no erasing, of which little of a local crop would be left.
        """
        c = self.config
        if not c.local_crops:
            return None
        scale = (c.local_scale_least, c.local_scale_most)
        blur = min(max(policy.blur_p), 0.5)
        return replace(policy, view_px=c.local_px, scale=scale, erase_p=0.0, blur_p=(blur, blur))

    def schedule(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Set the optimiser for a step; return the values that change with steps."""
        c = self.config
        lr = schedule.learning_rate(step, c.steps, c.warmup_steps, c.peak_lr, c.end_lr)
        decay = schedule.cosine(step, c.steps, c.weight_decay, c.end_weight_decay)
        frozen = step < c.freeze_last_epochs * c.steps_per_epoch
        for group in optimizer.param_groups:
            group["lr"] = 0.0 if frozen and group["last"] else lr * group["rate"]
            group["weight_decay"] = decay * group["decay"]
        warm = c.temperature_epochs * c.steps_per_epoch
        return {
            "lr": lr,
            "momentum": schedule.momentum(step, c.steps, c.momentum),
            "weight_decay": decay,
            "temperature": schedule.ramp(step, warm, c.start_temperature, c.teacher_temperature),
        }

    def argument(
        self, step: int, rows: range, values: dict[str, float], local: Tensor | None
    ) -> Step:
        """Return what the model's forward takes beside the views."""
        c, grid, kept = self.config, VIEW_PX // PATCH_PX, None
        places = np.concatenate([np.array(rows), np.array(rows) + c.batch])
        ratios = (c.mask_ratio_least, c.mask_ratio_most)
        masks = draw_masks(c.seed, step, 2 * c.batch, places, c.mask_probability, ratios, grid)
        if c.drop_path:
            kept = draw_kept(c.seed, step, c.batch, rows, self.views, self.depth, c.drop_path)
            kept = kept[: 2 * len(rows)], kept[2 * len(rows) :]
        return Step(values["temperature"], masks, kept, local)

    @property
    def settled(self) -> float:
        """Steps after which the collapse watch looks.

        Layer scale starts all images nearly alike, and the teacher, which is watched, forgets its
        start in some 1 / (1 - momentum) steps.
        """
        return self.config.warmup_steps + 3 / max(1 - self.config.momentum, 1e-6)

    def clip(self, model: DINO) -> None:
        """Clip the gradient's norm, of the encoder and of each head apart (dinov2)."""
        encoder = [*model.encoder.parameters(), model.mask_token]
        for part in (encoder, *(h.parameters() for h in (model.head, model.ibot_head) if h)):
            nn.utils.clip_grad_norm_(part, self.config.clip)

    def finish(self, model: DINO, values: dict[str, float]) -> None:
        """Do what follows the optimiser's step: the teacher follows."""
        model.follow(values["momentum"])

    def flops(self, model: DINO) -> int:
        """Return the floating-point operations of a step for one image of its batch, about.

        A local crop costs by its tokens; dropped branches cost nothing.
        """
        c, grid = self.config, VIEW_PX // PATCH_PX
        view = forward_flops(model.teacher_encoder, 1, 3, VIEW_PX, VIEW_PX)
        local = view * (1 + ((c.local_px or 0) // PATCH_PX) ** 2) / (1 + grid**2)
        head = 2 * sum(p.numel() for p in model.head.parameters() if p.ndim == 2)
        patches = 2 * grid**2 * c.mask_probability * (c.mask_ratio_least + c.mask_ratio_most) / 2
        student = (2 * view + (self.views - 2) * local) * (1 - c.drop_path)
        student += (self.views + patches) * head
        return round(3 * student + 2 * view + (2 + patches) * head)

    def describe(self, ranks: int) -> tuple[str, str]:
        """Return a word and a phrase on what an image is compared with."""
        c = self.config
        views = f"{2 * c.batch} views' targets"
        local = f", {c.local_crops} local crops of {c.local_px} px" if c.local_crops else ""
        return "prototypes", f"{c.prototypes} for {views} of {ranks} ranks ({c.targets}){local}"


def method_of(config: Config) -> MocoMethod | DinoMethod:
    """Return the method that a run's settings name."""
    return MocoMethod(config) if config.method == "moco" else DinoMethod(config)
