"""A network that embeds crops: its input size, normalisation and precision."""

import numpy as np


class Network:
    """A network in eval mode on its own input size and normalisation."""

    components, cached = None, True

    def __init__(self, name, module, config: dict, facts: dict, batch: int, precision: str):
        import torch

        self.name, self.config, self.facts = name, config, facts
        self.batch, self.precision = batch, precision
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = module.eval().to(self.device)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Embed crops; wider ones than the network's input are cut to their middle.

        Args:
            crops: (N, P, P, 3) uint8.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: the network's input is wider than the crops, or a vector is not finite.
        """
        import torch
        from tqdm import tqdm

        side = crops.shape[1]
        wanted = self.config["input_px"] or side  # None: whole, the module resizes it
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
        out = []
        bar = tqdm(total=len(crops), desc=f"embed {self.name}", unit="nuclei", disable=None)
        with torch.inference_mode(), bar:
            for i in range(0, len(crops), self.batch):
                part = np.ascontiguousarray(crops[i : i + self.batch])
                x = torch.from_numpy(part).to(self.device).permute(0, 3, 1, 2)  # (B, 3, P, P)
                x = (x.float() / 255 - mean) / std
                with torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.precision == "bf16"
                ):
                    z = self.module(x)
                out.append(z.float().cpu().numpy())  # (B, D)
                bar.update(len(part))
        vectors = np.concatenate(out)
        if not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors).all(axis=1)).sum())
            raise ValueError(f"{self.name}: {bad} of {len(vectors)} embeddings are not finite")
        return vectors

    def manifest(self) -> dict:
        return {"name": self.name, **self.facts, "precision": self.precision, "config": self.config}
