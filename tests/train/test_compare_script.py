"""train/compare.sh: runs that can be trained, under the names that its tables look for."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from train.config import DinoConfig
from train.flags import parse

SCRIPT = Path(__file__).parents[2] / "train/compare.sh"
WHERE = {"SHARDS": "shards", "BENCHMARKS": "a b", "OUT": "runs", "SEEDS": "0 7"}


def test_every_run_is_listed_once_with_settings_that_fit():
    done = subprocess.run(
        ["bash", SCRIPT, "list"], env=os.environ | WHERE, capture_output=True, text=True, check=True
    )
    configs = [parse(shlex.split(line)[1:])[0] for line in done.stdout.splitlines()]
    assert len(configs) == len({config.out for config in configs}) == 2 * (4 + 6)
    assert {config.seed for config in configs} == {0, 7}
    for config in configs:
        name = Path(config.out).name.removesuffix(f"--{config.seed}")
        if isinstance(config, DinoConfig):
            assert config.method == name
        elif name == "moco":
            assert (config.encoder, config.policy) == ("vit_ti8", "light")
        else:
            assert (config.encoder, config.policy) == ("resnet18s", name)
    rows = re.findall(
        r"=([\w+-]+)", SCRIPT.read_text().partition("\nprobe() {")[2].partition("}")[0]
    )
    assert {f"runs/{row}--{seed}" for row in rows for seed in (0, 7)} == {c.out for c in configs}
