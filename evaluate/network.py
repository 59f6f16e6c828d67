"""A network that embeds crops: its input size, normalisation, precision and speed."""

from typing import TYPE_CHECKING

import numpy as np

from evaluate.baselines import Encoder

if TYPE_CHECKING:
    from torch import nn

BATCH = {"cpu": 64, "cuda": 512}  # small batches stay in a CPU's cache


class Network(Encoder):
    """A network in eval mode on its own input size and normalisation."""

    def __init__(
        self,
        name: str,
        module: "nn.Module",
        config: dict,
        facts: dict,
        batch: int | None = None,
        precision: str = "fp32",
        compiled: bool = False,
    ):
        """Take a module to the device.

        Args:
            module: from (N, 3, P, P) normalised floats to (N, D).
            config: input_px (None: any), mpp, mean, std; of several readouts side by side, widths.
            facts: what else identifies the weights, as JSON.
            batch: crops at once; None: BATCH of the device.
            precision: `fp32`, or `bf16` by autocast: matrix products in bfloat16, the rest float32.
            compiled: by torch.compile with weights frozen in; the first batch takes a minute.
        """
        import torch

        super().__init__(name)
        self.config, self.facts, self.precision = config, facts, precision
        self.input_px = config["input_px"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batch = batch or BATCH[self.device.type]
        self.module = module.eval().to(self.device)
        if self.device.type == "cuda" and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # of convolutions, on unless it is said
        self._compiled = compiled
        self._forward = self.module
        if compiled:
            if self.device.type == "cpu":  # written out, attention of few tokens fuses better
                for layer in self.module.modules():
                    if hasattr(layer, "fused_attn"):
                        setattr(layer, "fused_attn", False)  # noqa: B010  # no Tensor, no Module
            self._forward = torch.compile(self.module, options={"freezing": True}, dynamic=False)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Embed crops; wider ones than the network's input are cut to their middle.

        Args:
            crops: (N, P, P, 3) uint8.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: the network's input is wider than the crops, or an embedding is not finite.
        """
        import torch

        side = crops.shape[1]
        wanted = self.input_px or side  # None: whole, the module resizes it
        if wanted > side:
            raise ValueError(
                f"{self.name} takes {wanted}x{wanted} px at {self.config['mpp']} µm/px, "
                f"but the benchmark's crops are {side}x{side}; train an encoder of {side} px"
            )
        start = (side - wanted) // 2
        crops = crops[:, start : start + wanted, start : start + wanted]
        mean, std = (
            torch.tensor(self.config[k], device=self.device).reshape(1, 3, 1, 1)
            for k in ("mean", "std")
        )
        cuda = self.device.type == "cuda"
        out = torch.empty(0, 0)  # its width is known after the first batch
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            for i in range(0, len(crops), self.batch):
                # Copied, since torch warns of memory that is read-only, as a mapped file's is.
                part = torch.from_numpy(np.array(crops[i : i + self.batch]))
                size = len(part)
                if self._compiled and size < self.batch:  # one shape, so that it compiles once
                    part = torch.cat([part, part[:1].expand(self.batch - size, *part.shape[1:])])
                if cuda:  # copied while the device computes the batch before
                    part = part.pin_memory().to(self.device, non_blocking=True)
                x = part.permute(0, 3, 1, 2).float()  # (B, 3, P, P)
                z = self._forward((x / 255 - mean) / std)[:size].float()
                if not i:
                    out = torch.empty(len(crops), z.shape[1], pin_memory=cuda)
                out[i : i + size].copy_(z, non_blocking=cuda)  # (B, D)
        if cuda:
            torch.cuda.synchronize()
        embeddings = out.numpy()
        if not np.isfinite(embeddings).all():
            bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
            raise ValueError(f"{self.name}: {bad} of {len(embeddings)} embeddings are not finite")
        return embeddings

    def blocks(self, width: int) -> tuple[int, ...]:
        """Return the widths of what stands side by side: class token and patches' mean, stages."""
        both = self.config.get("readout") == "class+mean"
        return tuple(self.config.get("widths", ())) or (width // (1 + both),) * (1 + both)

    def manifest(self) -> dict:
        """Return what the embeddings depend on, as JSON."""
        return {"name": self.name, **self.facts, "precision": self.precision, "config": self.config}
