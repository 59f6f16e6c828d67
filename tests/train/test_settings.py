"""Settings and flags: what earlier code wrote is read, official values, the table of commands."""

import json
import math

import pytest
import torch

from shards.command_line import command_parser
from tests.train.test_dino import tiny
from train.augment import draw
from train.config import RECIPES, configure
from train.config_file import EARLIER, EARLIER_DINO, FORMAT, LATER, check_same, read_settings
from train.encoder import build_encoder
from train.flags import parse
from train.main import COMMANDS
from train.policy import POLICIES, adjusted
from train.tokens import positions

# What the first format's config.json held of a dinov2 run with its defaults, in part.
FORMAT_1 = {
    **{"data": "d", "out": "o", "method": "dinov2", "encoder": "vit_s8", "policy": "a1+gray"},
    **{"batch": 4096, "epochs": 150.0, "epoch_samples": 1000000, "warmup_epochs": 20.0},
    **{"lr": 0.004, "prototypes": 4096, "freeze_last_epochs": 1.0, "temperature_epochs": 30.0},
    **{"projection": None, "kde_weight": None, "koleo_weight": 0.1, "local_crops": 8},
    **{"two_pass": 0, "seed": 0, "keep": 2},
}


def write(folder, settings: dict, **more) -> str:
    (folder / "config.json").write_text(json.dumps({"settings": settings, **more}))
    return str(folder)


def test_a_run_of_the_first_format_goes_on_by_the_same_command(tmp_path):
    out = write(tmp_path, FORMAT_1)
    same = ["--data", "d", "--out", out, "--method", "dinov2"]
    config, _ = parse(same)
    assert (config.prototypes, config.warmup_epochs, config.heads) == (4096, 20, 12)
    assert (config.koleo_over, config.interpolate_offset) == ("batch", 0)
    assert config.erase_ratio == "width/height"
    before = read_settings(tmp_path / "config.json")
    assert not {"projection", "kde_weight", "two_pass"} & before.keys()
    write(tmp_path, config.settings, format=FORMAT)  # as the resumed run writes it
    check_same(config, tmp_path / "config.json")
    assert parse(same)[0] == config  # and once more
    with pytest.raises(ValueError, match="--prototypes was 4096, is 65536"):
        check_same(parse([*same, "--prototypes", "65536"])[0], tmp_path / "config.json")
    for anew in (["--overwrite"], ["--out", str(tmp_path / "other")]):
        fresh, _ = parse([*same, *anew])
        assert (fresh.prototypes, fresh.heads, fresh.koleo_over) == (65536, 0, "rank")


def test_what_was_chosen_is_not_kept_for_a_command_that_leaves_it_out(tmp_path):
    out = write(tmp_path, FORMAT_1 | {"prototypes": 1024, "lr": 0.01})
    config, _ = parse(["--data", "d", "--out", out, "--method", "dinov2"])
    with pytest.raises(ValueError, match=r"--lr was 0\.01, is 0\.004.*--prototypes was 1024"):
        check_same(config, tmp_path / "config.json")


def test_a_moco_run_of_the_first_format_without_a_method(tmp_path):
    out = write(tmp_path, {"data": "d", "batch": 64, "hidden": 32, "bottleneck": None})
    config, _ = parse(["--config", f"{out}/config.json", "--out", "o"])
    assert (config.method, config.batch, config.erase_ratio) == ("moco", 64, "width/height")


def test_a_later_format_is_refused_with_the_cure(tmp_path):
    write(tmp_path, FORMAT_1, format=FORMAT + 1)
    with pytest.raises(ValueError, match=f"is of format {FORMAT + 1}.*update the code"):
        read_settings(tmp_path / "config.json")


@pytest.mark.parametrize("method", RECIPES)
def test_settings_are_written_and_read_back(method, tmp_path):
    config = configure(data="d", out="o", method=method)
    write(tmp_path, config.settings, format=FORMAT)
    assert configure(**read_settings(tmp_path / "config.json")) == config


def test_flags_are_grouped_and_say_the_default_of_each_method():
    parser = command_parser("train/main.py", "", COMMANDS, "train", "train")
    titles = {group.title for group in parser._action_groups if group._group_actions}
    assert {"data", "model", "optimisation", "run", "moco only"} <= titles
    text = " ".join(parser.format_help().split())
    assert "(default: 0.99 with moco, 0.992 with dinov2)" in text
    assert "A.2; dinov2-no-local-kde only (default: 5)" in text
    for action in parser._actions:
        if action.default == "==SUPPRESS==" and action.dest not in ("help", "data", "out"):
            assert "default: " in action.help, action.dest


# ---- what the official code does -----------------------------------------------------------------


def test_heads_are_each_methods_own():
    def heads(**options) -> int:
        return build_encoder("vit_s8", **options).blocks[0].attn.num_heads

    assert (heads(), heads(kind="dinov2"), heads(kind="dinov2", heads=12)) == (12, 6, 12)
    with pytest.raises(ValueError, match="--heads 5: must divide the 192 of vit_ti8"):
        tiny(heads=5)


def test_erased_boxes_have_torchvisions_ratio_of_height_to_width():
    for ratio, sign in (("height/width", 1), ("width/height", -1)):
        policy = adjusted(POLICIES["a1"], 0.1, ratio)
        boxes = draw(policy, 0, 0, 0, 20000, range(20000)).values[:, 4:8]
        _, _, height, width = boxes[boxes[:, 2] > 0].T
        mean = torch.log(height / width).mean().item()
        assert mean == pytest.approx(sign * (math.log(0.8) + math.log(1.2)) / 2, abs=0.005)


def test_the_second_blur_is_for_policies_that_blur():
    assert adjusted(POLICIES["a1"], 1.0, "height/width").blur_p == (1.0, 1.0)
    assert adjusted(POLICIES["light"], 1.0, "height/width").blur_p == (0.0, 0.0)
    assert adjusted(POLICIES["a1"], 0.1, "height/width") == POLICIES["a1"]


def test_positions_are_scaled_with_dinov2s_offset():
    """Pixel i of 3 lies at (i + 0.5) * 5 / 3.1 - 0.5 of 5; torch's bicubic has a = -0.75."""
    plane = torch.cat([torch.full((1, 1), 7.0), torch.arange(25.0)[:, None]])[None]
    found = positions(plane, 3, 0.1)[0, :, 0]
    near = 1.5 * 5 / 3.1 - 0.5 - 1  # right of patch 1, left of patch 2
    a, middle = -0.75, 0.0
    for patch, x in enumerate((near + 1, near, 1 - near, 2 - near)):
        inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
        middle += patch * (inner if x <= 1 else a * (x**3 - 5 * x**2 + 8 * x - 4))
    assert found.shape == (10,)
    assert found[0] == 7
    assert found[5].item() == pytest.approx(6 * middle, abs=1e-4)
    assert torch.equal(positions(plane, 5, 0.1), plane)


# What config.json held before it bore a format.
NAMES_1 = """
    activation_checkpointing batch bottleneck checkpoint_every clip compile data drop_path
    encoder end_lr end_weight_decay epoch_samples epochs freeze_last_epochs global_weight
    hidden ibot_head ibot_weight kappa kde_reduction kde_weight keep keep_every koleo_weight
    layer_decay layer_scale local_crops local_px local_scale_least local_scale_most
    log_every lr mask_probability mask_ratio_least mask_ratio_most method momentum
    neighbours out patch_lr policy precision probe probe_every projection prototypes seed
    self_pairs skip_corrupt start_temperature student_temperature targets
    teacher_temperature temperature temperature_epochs time_limit_hours two_pass
    warmup_epochs weight_decay workers
""".split()


@pytest.mark.parametrize("method", RECIPES)
def test_a_run_of_before_a_setting_came_has_a_value_for_it(method):
    fields = RECIPES[method].settings.__dataclass_fields__
    fixed = {name for name, one in fields.items() if not one.metadata["free"]}
    fixed -= {*RECIPES[method].absent, "method"}
    known = {*NAMES_1, *EARLIER, *EARLIER_DINO}
    assert fixed - known == {name for name in LATER if name in fields}
    for name in fixed - known:  # what was done before it is what is done without it
        assert fields[name].default == LATER[name]
