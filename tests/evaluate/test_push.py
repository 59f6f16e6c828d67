"""An encoder on the hub: pushed with its card, opened again by its name; the hub is a stand-in."""

import json

import httpx2
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file

from evaluate import main
from evaluate.probes.metrics import METRICS
from evaluate.results import store
from tests.evaluate.encoder_inputs import opened
from tests.evaluate.hub_stand_in import install, refusal
from train.encoder import build_encoder, save_encoder

ARGUMENTS = {"img_size": 40, "patch_size": 8, "depth": 2}
LEMON = {"mpp": 0.25, "network": "student", "method": "moco", "steps": 1500}


def write_encoder(folder, seed=0, **own):
    """Write an encoder in timm's hub layout."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **ARGUMENTS)
    save_file(model.state_dict(), folder / "model.safetensors")
    data = {"input_size": [3, 40, 40], "fixed_input_size": True, "crop_pct": 1.0}
    data |= {"interpolation": "bicubic", "mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.1]}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "num_features": 192}
    config |= {"global_pool": "token", "model_args": ARGUMENTS, "pretrained_cfg": data} | own
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def run(tmp_path):
    """A run whose settings hold paths of somebody's machine."""
    write_encoder(tmp_path / "runs/x/encoder", lemon=LEMON)
    settings = {"data": "/secret/shards", "out": "/secret/x", "method": "moco", "batch": 64}
    described = {"settings": settings, "command": "train/main.py --data /secret", "git": "a" * 40}
    (tmp_path / "runs/x/config.json").write_text(json.dumps(described))
    return tmp_path / "runs/x"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return install(monkeypatch, tmp_path / "hub")


def push(run, *words):
    return main.main(["push", str(run), *words])


def test_what_is_pushed_opens_again(run, hub, benchmark, capsys):
    assert push(run, "me/nuclei", "--private") == 0
    said = capsys.readouterr().out
    assert "huggingface.co/me/nuclei/commit/" in said and "--encoder hf-hub:me/nuclei" in said
    assert hub.private == {"me/nuclei": True}
    (commit,) = hub.commits("me/nuclei")
    assert {p.name for p in commit.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    for name in ("config.json", "model.safetensors"):
        assert (commit / name).read_bytes() == (run / "encoder" / name).read_bytes()

    crops = benchmark.crops[:5]
    ours, theirs = opened(str(run)), opened("hf-hub:me/nuclei")
    assert (theirs.name, theirs.facts) == ("me_nuclei", ours.facts)
    assert theirs.config == ours.config
    np.testing.assert_array_equal(theirs.embed(crops), ours.embed(crops))
    np.testing.assert_array_equal(opened("timm:hf-hub:me/nuclei").embed(crops), ours.embed(crops))
    assert opened("hf-hub:me/nuclei+mean").embed(crops).shape == (5, 384)

    model = timm.create_model("hf-hub:me/nuclei", pretrained=True).eval()  # as a stranger does
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, 40, 40) and list(data["mean"]) == [0.7, 0.5, 0.6]
    edge = (crops.shape[1] - 40) // 2
    middle = crops[:, edge : edge + 40, edge : edge + 40]
    x = torch.from_numpy((middle / 255 - data["mean"]) / data["std"]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        np.testing.assert_allclose(model(x).numpy(), ours.embed(crops), atol=1e-4)


def test_what_training_writes_is_pushed_as_it_is(hub, benchmark, tmp_path):
    model = build_encoder("vit_ti8", seed=3)
    save_encoder(
        model, tmp_path / "x/encoder", [0.7, 0.5, 0.6], [0.2, 0.2, 0.1], 0.25,
        network="student", method="moco", step=10, data={"samples": 9, "slides": 2},
    )  # fmt: skip
    assert push(tmp_path / "x", "me/x") == 0
    card = (hub.commits("me/x")[0] / "README.md").read_text()
    assert "samples 9, slides 2" in card and "192 numbers" in card
    crops = benchmark.crops[:3]
    expected = opened(str(tmp_path / "x")).embed(crops)
    np.testing.assert_array_equal(opened("hf-hub:me/x").embed(crops), expected)


def test_weights_in_several_files_go_with_their_index(run, hub):
    folder = run / "encoder"
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(state)}
    for file in set(where.values()):
        save_file({k: v for k, v in state.items() if where[k] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert push(run, "me/parts") == 0
    names = {path.name for path in hub.commits("me/parts")[0].iterdir()}
    assert names == {
        *set(where.values()),
        "config.json",
        "README.md",
        "model.safetensors.index.json",
    }
    assert opened("hf-hub:me/parts").facts == opened(str(run)).facts


def test_a_revision_is_taken_whole(run, hub, tmp_path):
    assert push(run, "me/nuclei") == 0
    (first,) = hub.commits("me/nuclei")
    write_encoder(tmp_path / "other/encoder", seed=1, lemon=LEMON)
    assert push(tmp_path / "other", "me/nuclei") == 0
    before, now = opened(f"hf-hub:me/nuclei@{first.name[4:]}"), opened("hf-hub:me/nuclei")
    assert before.facts == opened(str(run)).facts != now.facts
    assert now.facts == opened(str(tmp_path / "other")).facts


def test_an_edited_card_stays_unless_it_is_replaced(run, hub, tmp_path, caplog):
    assert push(run, "me/nuclei") == 0
    (hub.commits("me/nuclei")[-1] / "README.md").write_text("by hand")
    assert push(run, "me/nuclei") == 0
    assert "the model card of me/nuclei stays as it is" in caplog.text
    assert (hub.commits("me/nuclei")[-1] / "README.md").read_text() == "by hand"
    assert push(run, "me/nuclei", "--overwrite") == 0
    assert "# nuclei" in (hub.commits("me/nuclei")[-1] / "README.md").read_text()
    (tmp_path / "card.md").write_text("my own")
    assert push(run, "me/nuclei", "--card", str(tmp_path / "card.md")) == 0
    assert (hub.commits("me/nuclei")[-1] / "README.md").read_text() == "my own"


def test_the_card_says_scores_of_these_weights_only_and_no_paths(run, hub, tmp_path, capsys):
    write_encoder(tmp_path / "runs/y/encoder", seed=1, lemon=LEMON)
    results = tmp_path / "results"
    facts = {"nuclei": 9, "classes": {"a": 4, "b": 5}, "positive": "b", "group_kind": "slide"}
    rows = [
        {"split": "stratified", "fold": fold, "metric": metric, "value": 0.5 + fold / 10}
        for fold in range(3)
        for metric in METRICS
    ]
    for name, manifest in {
        "pixels": {},
        "x": opened(str(run)).manifest(),
        "y": opened(str(run.with_name("y"))).manifest(),
    }.items():
        store(results, "own", facts | {"groups": 3}, name, manifest, rows)
    words = ["--results", str(results), "--license", "cc-by-4.0", "--dry-run"]
    assert push(run, "me/nuclei", *words) == 0
    card = capsys.readouterr().out
    assert hub.asked == []  # nothing was sent
    assert card.startswith("---\nlibrary_name: timm\n") and "license: cc-by-4.0\n" in card
    assert "| pixels " in card and "\n| x " in card and "\n| y " not in card
    assert "0.25 µm/px" in card and "192 numbers" in card and "1,500" in card
    assert "--batch 64" in card and "/secret" not in card
    assert str(tmp_path) not in card.split("would upload")[0]
    assert "would upload" in card and "model.safetensors" in card


def test_others_encoders_see_the_whole_crop(hub, tmp_path, benchmark):
    """Without our key a repository is timm's: its input is the whole crop, enlarged."""
    folder = hub.folder / "they/vit" / f"000-{'b' * 40}"
    write_encoder(folder)
    encoder = opened("hf-hub:they/vit")
    assert encoder.config["input_px"] is None and encoder.config["resize_px"] == 40
    assert encoder.embed(benchmark.crops[:3]).shape == (3, 192)


@pytest.mark.parametrize("name", ["nuclei", "a/b/c", "/b", "a/", "a--b/c", "../b", "a/b c", "a/.b"])
def test_a_repository_is_owner_and_name(run, hub, name, capsys):
    assert push(run, name) == 2
    assert "owner/name" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"owner/name"):
        opened(f"hf-hub:{name}")
    assert hub.asked == []


def test_an_earlier_layout_is_refused(run, hub, capsys):
    (run / "encoder/config.json").write_text(json.dumps({"format": 1, "timm": {}}))
    assert push(run, "me/nuclei") == 2
    assert "not in timm's hub layout" in capsys.readouterr().err
    assert hub.asked == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LocalTokenNotFoundError("no token"), "not logged in; run `hf auth login`"),
        (refusal(errors.HfHubHTTPError, 403), "(403 Client Error.); run `hf auth login` with"),
        (refusal(errors.HfHubHTTPError, 500), "could not be written (500 Client Error.)"),
        (httpx2.ConnectError("Name or service not known"), "(Name or service not known)"),
        (errors.OfflineModeIsEnabled("offline mode is enabled"), "(offline mode is enabled)"),
    ],
)
def test_a_hub_that_refuses_says_what_to_do(run, hub, error, words, capsys):
    hub.refuse = error
    assert push(run, "me/nuclei") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: https://huggingface.co/me/nuclei could not be")
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal(errors.GatedRepoError, 403), "accept its terms"),
        (refusal(errors.RepositoryNotFoundError, 401), "is not there, or is private"),
        (refusal(errors.RevisionNotFoundError), "no such revision"),
        (errors.LocalEntryNotFoundError("no connection"), r"fetched; .* \(no connection\)"),
    ],
)
def test_what_cannot_be_fetched_says_why(hub, error, words):
    hub.refuse = error
    with pytest.raises(OSError, match=words):
        opened("hf-hub:me/nuclei")
