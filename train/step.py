"""How a step is done on a device: its forward and backward pass, one or two at a time."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from train.batchnorm import BatchNorm2d
from train.config import Config, DinoConfig
from train.method import Method
from train.moco import MoCo
from train.network import ViT, blocks
from train.twopass import two_pass


def tune(model: Method, config: Config, device: torch.device) -> None:
    """Set what changes speed and memory, not results."""
    encoders = (model.encoder, model.teacher_encoder)
    if device.type == "cpu":  # there the fused attention's backward is slow at 26 tokens
        for encoder in encoders:
            for layer in encoder.modules():
                if hasattr(layer, "fused_attn"):
                    setattr(layer, "fused_attn", False)  # noqa: B010  # no Tensor, no Module
    else:
        # TF32 where autocast leaves fp32, the losses too: dinov2 allows it, and moco-v3's
        # logits are of half precision.
        half = config.precision == "bf16"
        torch.set_float32_matmul_precision("high" if half else "highest")
        torch.backends.cudnn.allow_tf32 = half  # of convolutions, on unless it is said
        # How many rows a branch keeps changes; cuDNN's attention plans anew for each number.
        drops = isinstance(config, DinoConfig) and config.drop_path > 0
        torch.backends.cuda.enable_cudnn_sdp(not drops)
    if config.activation_checkpointing:
        model.encoder.set_grad_checkpointing(True)
    if config.compile and isinstance(model, MoCo):
        for encoder in encoders:
            if dist.get_world_size() > 1:  # the compiler leaves out what speaks to other ranks
                for layer in encoder.modules():
                    if isinstance(layer, BatchNorm2d):
                        setattr(layer, "forward", torch.compiler.disable(layer.forward))  # noqa: B010  # typed as a method
            encoder.compile(mode="reduce-overhead" if model.config.cuda_graphs else None)
    elif config.compile:  # stochastic depth takes the blocks apart
        for block in (block for one in encoders for block in blocks(cast(ViT, one))):
            block.attn.compile()
            block.mlp.compile()


def stepper(
    model: Method, config: Config, device: torch.device
) -> Callable[..., dict[str, Tensor]]:
    """Return what does a step's forward and backward pass, gradients averaged over the ranks.

    Args:
        model: tuned.
        config: of the run.
        device: of the model.

    Returns:
        A function of the method's step inputs.
    """
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=config.precision == "bf16"
    )
    if isinstance(model, MoCo) and model.config.two_pass:
        return partial(two_pass, model, chunk=model.config.two_pass, autocast=autocast)
    # One rank has nothing to average. Buffers, DINO's centres, are the same on all ranks.
    alone = dist.get_world_size() == 1
    networks = model if alone else DistributedDataParallel(model, gradient_as_bucket_view=True)
    graphs = isinstance(model, MoCo) and model.config.cuda_graphs

    def plain(*inputs: object) -> dict[str, Tensor]:
        if graphs:  # what the step before returned may be written over
            torch.compiler.cudagraph_mark_step_begin()
        with autocast():
            result = networks(*inputs)
        result["loss"].backward()
        return result

    return plain
