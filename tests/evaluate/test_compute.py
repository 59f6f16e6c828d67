"""Compute against quality: counts against sums by hand and the paper, means over benchmarks."""

import csv
import json

import numpy as np
import pytest

from evaluate import main
from evaluate.analyses.compute import cost_of, mean_scores, measure_speed

SMALL = {"patch_size": 8, "img_size": 40, "global_pool": "token"}
LEMON = {
    "kind": "lemon",
    "config": {"input_px": 40, "timm": {"name": "vit_small_patch16_224", "args": SMALL}},
}
UNTRAINED = {
    "kind": "random initialisation", "architecture": "vit_ti8", "config": {"input_px": 40},
}  # fmt: skip


def by_hand(tokens: int, width: int, depth: int, hidden: int, embed: int) -> tuple[int, int]:
    """Return multiply-adds of a ViT's layers, and of the products inside its attention."""
    block = tokens * (4 * width * width + 2 * width * hidden)
    return embed + depth * block, depth * 2 * tokens * tokens * width


def test_vit_small_counted_by_hand():
    cost = cost_of(LEMON)
    layers, attention = by_hand(26, 384, 12, 1536, 25 * 8 * 8 * 3 * 384)
    assert (cost.macs, cost.attention) == (layers + attention, attention)
    assert 0.5e9 < cost.macs < 0.6e9  # paper: 0.5 G
    assert (cost.input_px, cost.family) == (40, "cells")
    assert round(cost.parameters / 1e6, 1) == 21.4


def test_h_optimus_as_the_paper_counts_it():
    cost = cost_of({"kind": "h-optimus-0"})
    assert abs((cost.macs - cost.attention) / 1e9 - 295.9) < 0.2  # paper, section 3.3
    hidden, width, tokens = 4096, 1536, 261  # SwiGLU: two matrices in, one out
    layers = 256 * 14 * 14 * 3 * width + 40 * tokens * (4 * width**2 + 3 * width * hidden)
    assert cost.macs - cost.attention == layers
    assert cost.attention == 40 * 2 * tokens**2 * width
    assert round(cost.parameters / 1e6) == 1135 and cost.family == "tiles"


def test_what_is_no_network_and_what_is_unknown():
    assert cost_of({"kind": "handcrafted measures"}) is None
    assert cost_of({"kind": "volta"}).input_px == 32
    with pytest.raises(ValueError, match="a network of kind 'odd'"):
        cost_of({"name": "x", "kind": "odd", "config": {"input_px": 40}})


def test_speed_counts_images():
    class Slow:
        batch, calls = 10, 0

        def embed(self, crops):
            self.calls += len(crops)

    slow = Slow()
    speed = measure_speed(slow, seconds=0.0)
    assert slow.calls == 30 and speed["images_per_s"] > 0 and speed["batch"] == 10


def test_the_command_draws_what_was_probed(tmp_path, capsys):
    probes = {
        ("lemon", "a"): 0.8, ("lemon", "b"): 0.6, ("pixels", "a"): 0.5, ("pixels", "b"): 0.3,
        ("lemon", "only"): 0.9, ("untrained", "a"): 0.6, ("untrained", "b"): 0.5,
    }  # fmt: skip
    for (encoder, benchmark), value in probes.items():
        rows = [
            {"split": "stratified", "fold": f, "metric": "balanced accuracy", "value": value + d}
            for f, d in enumerate((-0.1, 0.1))
        ]
        manifest = {"lemon": LEMON, "pixels": {"kind": "raw pixels"}, "untrained": UNTRAINED}[
            encoder
        ]
        pair = {"encoder": encoder, "benchmark": benchmark, "facts": {}, "details": {}}
        path = tmp_path / "probes" / benchmark / f"{encoder}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(pair | {"manifest": manifest, "rows": rows}))
    benchmarks, means = mean_scores(tmp_path)["balanced accuracy"]
    assert benchmarks == ["a", "b"]  # where both were probed
    assert np.allclose([means["lemon"], means["pixels"]], [0.7, 0.4])
    assert (
        main.main(["compute", str(tmp_path), "--also", "uni", "vit_s8", "--encoder", "pixels"]) == 0
    )
    assert "lemon" in capsys.readouterr().out
    with open(tmp_path / "tables" / "compute.csv") as file:
        rows = {row["encoder"]: row for row in csv.DictReader(file)}
    assert rows["lemon"]["GMAC"] == "0.560" and rows["lemon"]["mean balanced accuracy"] == "0.700"
    assert (rows["untrained"]["family"], rows["untrained"]["input px"]) == ("untrained", "40")
    assert rows["pixels"]["GMAC"] == "" and rows["pixels"]["images/s"]
    assert rows["uni"]["mean balanced accuracy"] == "" and float(rows["uni"]["GMAC"]) > 50
    assert (rows["vit_s8"]["GMAC"], rows["vit_s8"]["family"]) == ("0.560", "cells")
    facts = json.loads((tmp_path / "figures" / "compute.json").read_text())
    assert "lemon has the highest mean balanced accuracy, 0.700" in facts["headline"]
    assert main.main(["compute", str(tmp_path), "--also", "x"]) == 2
