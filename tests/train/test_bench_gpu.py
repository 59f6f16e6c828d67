"""bench/gpu.py without a GPU: comparisons, what fails and what goes on, the encoder's files."""

import json

import pytest
import torch
from safetensors.torch import load_file

from bench import gpu
from bench.card import right
from bench.card.longrun import leave, write_shards
from bench.card.work import Card
from train.config import configure
from train.encoder import build_encoder, load_encoder, save_encoder


def test_a_part_that_fails_says_why_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    def broken() -> dict:
        raise RuntimeError("no such kernel")

    def some(card: Card, peak: float, program: None) -> dict:
        assert peak > 0
        return {"views": broken, "right": lambda: {"x": {"right": True, "difference": 0.0}}}

    monkeypatch.setattr(gpu, "parts", some)
    out = tmp_path / "gpu.json"
    assert gpu.main(["--cpu", "--out", str(out)]) == 1
    report = json.loads(out.read_text())
    assert report["card"] == "none: not measured"
    assert report["views"]["failed"].startswith("RuntimeError: no such kernel (test_bench_gpu.py")
    assert report["right"]["x"]["right"]
    assert "no such kernel" in capsys.readouterr().out
    assert gpu.main(["--cpu", "--minutes", "0", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["views"] == {"left out": "0 minutes were over"}


def test_what_is_wrong_or_waits_is_no_success():
    good = {"right": {"a": {"right": True}}, "smooth": {"moco": "none"}, "views": {"ours": 1.0}}
    assert gpu.sound(good)
    assert not gpu.sound(good | {"right": {"a": {"right": False}}})
    assert not gpu.sound(good | {"smooth": {"moco": ["augment.py:3: synchronizing"]}})
    assert not gpu.sound(good | {"views": {"failed": "RuntimeError"}})


def test_each_augmentation_in_float32_is_float64s():
    card = Card(torch.device("cpu"), tiny=True, quick=True)
    differences = dict(right._operations(card))
    assert len(differences) == 9
    assert max(differences.values()) < right.PIXELS


def test_an_encoder_is_left_in_small_files(tmp_path):
    state = {f"layer{i}": torch.randn(100, 500) for i in range(5)}  # 100 kB each in float16
    assert write_shards(state, tmp_path, most=300_000) == 3
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 500_000
    for name, tensor in state.items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][name])[name], tensor.half())
    assert all(p.stat().st_size < 300_000 for p in tmp_path.glob("*.safetensors"))


def test_what_is_left_of_a_run_opens_as_any_encoder(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    model = build_encoder("vit_ti8")
    save_encoder(model, run / "encoder", [0.5] * 3, [0.25] * 3, 0.25, step=7)
    (run / "log.jsonl").write_text('{"step": 7, "loss": 2.5}\n')
    (run / "config.json").write_text("{}\n")
    config = configure(data="shards", out=str(run), encoder="vit_ti8")
    assert leave(config, out) == {"steps": 7, "loss": 2.5, "files": 1}
    found, about = load_encoder(out / "encoder")
    assert about["weights"] == "float16" and about["step"] == 7 and "sha256" not in about
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor.half().float())


@pytest.mark.soak
def test_all_of_it_runs_on_a_cpu(tmp_path):
    assert gpu.main(["--cpu", "--minutes", "60", "--out", str(tmp_path / "gpu.json")]) == 0
