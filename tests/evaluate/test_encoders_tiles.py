"""Transformers on tiles: each publisher's layout, strict; the giants without their memory."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evaluate.encoders import open_encoders
from evaluate.networks import tile
from evaluate.networks.readout import Readout, Resized
from evaluate.networks.tile import TILES, build, open_tile

# name: depth, width, patch, positions, tensors of the feed-forward, registers
CARDS = {
    "dinov2-s": (12, 384, 14, 1370, {"fc1": (1536, 384), "fc2": (384, 1536)}, 0),
    "dinov2-b": (12, 768, 14, 1370, {"fc1": (3072, 768), "fc2": (768, 3072)}, 0),
    "dinov2-l": (24, 1024, 14, 1370, {"fc1": (4096, 1024), "fc2": (1024, 4096)}, 0),
    "dinov2-g": (40, 1536, 14, 1370, {"w12": (8192, 1536), "w3": (1536, 4096)}, 0),
    "uni": (24, 1024, 16, 197, {"fc1": (4096, 1024), "fc2": (1024, 4096)}, 0),
    "virchow2": (32, 1280, 14, 261, {"fc1": (6832, 1280), "fc2": (1280, 3416)}, 4),
    "h-optimus-0": (40, 1536, 14, 256, {"fc1": (8192, 1536), "fc2": (1536, 4096)}, 4),
}


def layout(card: tuple) -> dict[str, tuple]:
    """Names and shapes of a vision transformer with layer scale, as its publisher saves it."""
    depth, dim, patch, positions, mlp, registers = card
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, positions, dim)}
    if registers:
        shapes["reg_token"] = (1, registers, dim)
    shapes |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
        layers |= {f"mlp.{name}": shape for name, shape in mlp.items()}
        for name, shape in layers.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
        shapes |= {f"blocks.{i}.ls{n}.gamma": (dim,) for n in (1, 2)}
    return shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}


def published(kind: str) -> dict:
    """A publisher's file: names and shapes, by kind."""
    if kind.startswith("dinobloom"):
        card = CARDS[kind.replace("dinobloom", "dinov2")]
        shapes = layout((*card[:3], 257, *card[4:])) | {"mask_token": (1, card[1])}
        teacher = {f"backbone.{name}": shape for name, shape in shapes.items()}
        teacher |= {"dino_head.mlp.0.weight": (8, card[1]), "ibot_head.last_layer.weight_g": (8, 1)}
        return {"teacher": teacher}
    shapes = layout(CARDS[kind])
    if kind.startswith("dinov2"):  # Meta's own file
        shapes |= {"mask_token": (1, CARDS[kind][1])}
    return shapes


def tensors(shapes: dict, device: str) -> dict:
    """Fill a nest of shapes; the scales of norms and layers are about 1."""

    def drawn(name: str, shape: tuple) -> torch.Tensor:
        scale = name.endswith(("gamma", "norm.weight", "norm1.weight", "norm2.weight"))
        return torch.randn(shape, device=device) * 0.05 + scale

    return {
        k: tensors(v, device) if isinstance(v, dict) else drawn(k, v) for k, v in shapes.items()
    }


@pytest.mark.parametrize("kind", TILES)
def test_the_publishers_layout_fits_strictly(monkeypatch, tmp_path, kind):
    """On the meta device: names and shapes, no memory."""
    (tmp_path / "weights.bin").write_bytes(b"")
    state = tensors(published(kind), "meta")
    monkeypatch.setattr(tile, "read_state", lambda path: state)
    module, config, facts = open_tile(kind, tmp_path / "weights.bin")
    card = CARDS[kind.replace("dinobloom", "dinov2")]
    transformer = module.network.transformer
    assert (len(transformer.blocks), transformer.num_features) == card[:2]
    assert transformer.patch_embed.grid_size == (16, 16) if card[2] == 14 else (14, 14)
    assert (config["resize_px"], config["input_px"], facts["kind"]) == (224, None, kind)
    assert config["mean"][0] == (0.707223 if kind == "h-optimus-0" else 0.485)
    if not kind.startswith("dinobloom"):
        del state["blocks.3.ls1.gamma"]
        with pytest.raises(ValueError, match=r"1 missing, first blocks.3.ls1.gamma"):
            open_tile(kind, tmp_path / "weights.bin")


def test_metas_file_and_timms_and_dinoblooms_are_one_network(tmp_path):
    """The same weights in three layouts give the same vectors; Pillow enlarges alike."""
    torch.manual_seed(0)
    shapes = published("dinobloom-s")
    bloom = tensors(shapes, "cpu")
    meta = {
        k.removeprefix("backbone."): v
        for k, v in bloom["teacher"].items()
        if k.startswith("backbone.")
    }
    plain = {k: v for k, v in meta.items() if k != "mask_token"}
    noise = np.random.default_rng(0).uniform(60, 200, (40, 40, 3))
    crops = cv2.GaussianBlur(noise, (0, 0), 2).round().astype(np.uint8)[None]
    vectors = []
    for name, state in (("dinobloom-s", bloom), ("dinov2-s", meta), ("dinov2-s", plain)):
        torch.save(state, tmp_path / "weights.pth")
        (encoder,) = open_encoders([f"{name}:{tmp_path / 'weights.pth'}"])
        vectors.append(encoder.embed(crops))
    for other in vectors[1:]:
        np.testing.assert_array_equal(other, vectors[0])
    import timm

    with torch.device("meta"):
        model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval()
    model.load_state_dict(plain, assign=True)
    image = Image.fromarray(crops[0]).resize((224, 224), Image.Resampling.BICUBIC)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((np.asarray(image) / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    with torch.inference_mode():
        (expected,) = model(torch.from_numpy(x)[None]).numpy()
    # Pillow rounds to whole grey values.
    np.testing.assert_allclose(vectors[0][0], expected, atol=0.05 * expected.std())


def test_positions_of_a_larger_grid_are_resampled(tmp_path):
    torch.manual_seed(0)
    state = tensors(published("dinov2-s"), "cpu")
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    module, _, _ = open_tile("dinov2-s", tmp_path / "dinov2_vits14_pretrain.pth")
    found = module.network.transformer.pos_embed  # (1, 257, 384)
    np.testing.assert_array_equal(found[:, 0], state["pos_embed"][:, 0])
    grid = state["pos_embed"][:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, (16, 16), mode="bicubic", antialias=True)
    np.testing.assert_allclose(found[:, 1:], expected.flatten(2).transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize("kind", ["virchow2", "h-optimus-0", "dinov2-g"])
def test_the_gate_of_the_feed_forward_comes_first(kind):
    """SwiGLU as Meta writes it: silu(x1) * x2, then w3."""
    mlp = build(kind).blocks[0].mlp.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.02)
    x = torch.randn(2, 3, mlp.fc1.in_features)
    gate, value = mlp.fc1(x).chunk(2, dim=-1)
    expected = mlp.fc2(gate * torch.sigmoid(gate) * value)
    torch.testing.assert_close(mlp(x), expected)


class Counted(nn.Module):
    """A transformer whose patch in row r and column c is 100 r + c; class -1, registers -9."""

    def __init__(self, grid: int, registers: int):
        super().__init__()
        self.num_prefix_tokens = 1 + registers
        self.patch_embed = nn.Module()
        self.patch_embed.grid_size = (grid, grid)
        rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
        prefix = torch.tensor([-1.0] + [-9.0] * registers)
        self.tokens = torch.cat([prefix, (100 * rows + columns).flatten().float()])

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.tokens[None, :, None].expand(len(x), -1, 2)


@pytest.mark.parametrize(
    ("grid", "registers", "center"),
    [(14, 0, 6.5 * 101), (16, 4, 7.5 * 101), (16, 0, 7.5 * 101)],  # rows 5-8 and 6-9
)
def test_readouts_skip_class_and_registers(grid, registers, center):
    x = torch.zeros(3, 3, 224, 224)
    counted = Counted(grid, registers)
    assert Readout(counted, "class")(x).tolist() == [[-1, -1]] * 3
    mean = (grid - 1) / 2 * 101
    assert Readout(counted, "class+mean")(x).tolist() == [[-1, -1, mean, mean]] * 3
    assert Readout(counted, "center")(x).tolist() == [[center, center]] * 3


def test_any_side_is_resized_as_pillow_does():
    class Seen(nn.Module):
        def forward(self, x):
            self.x = x
            return x.mean(dim=(2, 3))

    crop = np.random.default_rng(0).uniform(0, 255, (128, 128)).astype(np.float32)
    for side in (40, 128, 300):
        seen = Seen()
        image = np.resize(crop, (side, side))
        Resized(seen, 224)(torch.from_numpy(image)[None, None])
        expected = Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(seen.x[0, 0], np.asarray(expected), atol=1e-2)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["uni-center", "virchow2", "virchow2+mean", "h-optimus-0"])
def test_a_giant_embeds(tmp_path, kind):
    """Random weights of the real size, 1.2-4.5 GB: saved, mapped, embedded."""
    base = kind.removesuffix("-center").removesuffix("+mean")
    torch.save(tensors(published(base), "cpu"), tmp_path / "pytorch_model.bin")
    (encoder,) = open_encoders([f"{kind}:{tmp_path / 'pytorch_model.bin'}"])
    crops = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
    vectors = encoder.embed(crops)
    assert vectors.shape == (2, CARDS[base][1] * (2 if "+" in kind else 1))
    assert not np.array_equal(vectors[0], vectors[1])
