"""The model card of a trained encoder: what it is, how to use it, its scores, its limits."""

import json
from pathlib import Path
from typing import Any

from evaluate.networks.hub_folder import open_hub_folder
from evaluate.results import is_baseline, read_facts
from evaluate.tables.table import markdown, markdown_table, read_tables, take
from train.encoder import OWN

FRONT = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
{license}tags:
- timm
- self-supervised
- histology
- pathology
- nuclei
---
"""
TEXT = """\
# {title}

An encoder of single nuclei in H&E, trained without labels by the LEMON pipeline. It turns the
picture of a nucleus, 40X and with the nucleus in the middle, into {width} numbers.

## Use it

```python
import timm

model = timm.create_model("hf-hub:{repository}", pretrained=True).eval()
data = timm.data.resolve_model_data_config(model)  # input size, mean and standard deviation
# input (N, 3, {px}, {px}): (rgb / 255 - mean) / std, at {mpp} µm/px; output (N, {width})
```

With the pipeline, which cuts the pictures out of slides:

```bash
python evaluate/main.py slide MY-SLIDE.svs --encoder hf-hub:{repository} --out my.h5ad my.geojson
python evaluate/main.py probe --encoder hf-hub:{repository} morphology \\
    --benchmark MY-NUCLEI/ --out results/
```

## What it is

{facts}
{training}
## Scores

{scores}

## Meant for, and not

For research: clustering, retrieval, probes of cell types, features for models of slides. Not for
diagnosis, nor for any decision about a patient.

Known limits: nuclei of 20X slides, enlarged, are embedded worse. A slide's stain is still in the
embedding: look at batch effects before pooling sites. What the segmenter misses is never seen.
Leave the patients of a benchmark out of the training data, or say that they are in it.{licence}
"""
ELSEWHERE = ("mpp", "format", "sha256")  # in the table
PRIVATE = ("data", "out", "probe")  # settings that are paths of somebody's machine


def model_card(
    folder: Path, repository: str, license: str = "", results: list[Path] | None = None
) -> str:
    """Return the README.md of an encoder on the hub.

    Args:
        folder: the encoder's, in timm's hub layout; the run's config.json beside it is read, too.
        license: of the weights, in the hub's word; '' if it is not said.
        results: folders of probes; the tables of those in which these very weights stand go in,
            beside the baselines.

    Raises:
        FileNotFoundError: no encoder there, or no such results folder.
        ValueError: the files do not fit each other.
    """
    module, config, facts = open_hub_folder(folder)
    width = getattr(module, "num_features", 0)
    own = json.loads((folder / "config.json").read_text()).get(OWN, {})
    rows = [
        ["architecture", f"`{config['timm']['name']}`, {_said(config['timm']['args'])}"],
        ["input", f"{config['input_px']}x{config['input_px']} px at {config['mpp']} µm/px"],
        ["mean, standard deviation", f"{_said(config['mean'])}; {_said(config['std'])}"],
        *([key, _said(value)] for key, value in own.items() if key not in ELSEWHERE),
        ["SHA-256 of the weights", f"`{facts['sha256']}`"],
    ]
    return FRONT.format(license=f"license: {license}\n" if license else "") + TEXT.format(
        title=repository.partition("/")[2],
        repository=repository,
        width=width,
        px=config["input_px"],
        mpp=config["mpp"],
        facts=markdown_table(["", ""], rows),
        training=_training(folder.parent / "config.json"),
        scores=_scores(facts["sha256"], results or []),
        licence="" if license else "\n\nThe licence of the weights is not stated; ask their owner.",
    )


def _training(path: Path) -> str:
    """Return how the encoder was trained, without the paths of the machine it was trained on."""
    if not path.is_file():
        return ""
    run = json.loads(path.read_text())
    settings = {k: v for k, v in run.get("settings", {}).items() if k not in PRIVATE}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    versions = ", ".join(f"{name} {number}" for name, number in run.get("versions", {}).items())
    commit = f", commit `{run['git'][:10]}`" if run.get("git") else ""
    return (
        f"\nSettings of its training{commit} ({versions}):\n\n```text\n"
        f"torchrun train/main.py --data shards/ {flags}\n```\n"
    )


def _scores(sha256: str, results: list[Path]) -> str:
    """Return the tables of these weights beside the baselines, or that there are none."""
    parts = []
    for folder in results:
        if not folder.is_dir():
            raise FileNotFoundError(f"no results folder {folder}; `probe` makes one")
        known = read_facts(folder)["encoders"]
        for table in read_tables(folder):
            manifests = known[table.benchmark]
            same = [name for name in manifests if manifests[name].get("sha256") == sha256]
            rows = [i for i, e in enumerate(table.encoders) if e in same or is_baseline(e)]
            if set(same) & {table.encoders[i] for i in rows}:
                parts.append(take(table, rows))
    if not parts:
        return "None were given."
    return "A linear probe of the frozen embeddings.\n\n" + markdown(parts).strip()


def _said(value: Any) -> str:
    """Return a value of the config for a cell of the table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
