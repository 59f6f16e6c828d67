"""PanNuke: both distributions written as their publishers write them, and each trap."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluate.benchmarks.find import find_benchmark
from evaluate.benchmarks.pannuke import CLASSES, TISSUES, load, tried

NEOPLASTIC, INFLAMMATORY, CONNECTIVE, DEAD, EPITHELIAL = range(5)
# Warwick's tissue words and the numbers of Hugging Face's for the same.
TYPES = {"Adrenal_gland": 0, "Bile-duct": 1, "HeadNeck": 7, "Ovarian": 11}


def disc(x: int, y: int, radius: int = 6) -> np.ndarray:
    rows, columns = np.mgrid[:256, :256]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def corner(x: int, y: int) -> np.ndarray:
    """An L of 3x12 and 9x3 px: its mean is not the middle of its box."""
    mask = np.zeros((256, 256), bool)
    mask[y : y + 12, x : x + 3] = True
    mask[y + 9 : y + 12, x + 3 : x + 12] = True
    return mask


# fold -> images: (tissue, [(class, mask)]); the second image of fold 1 has no nucleus
IMAGES = {
    "fold1": [
        ("Bile-duct", [(NEOPLASTIC, disc(100, 90)), (INFLAMMATORY, disc(150, 160))]),
        ("HeadNeck", []),
        ("Ovarian", [(CONNECTIVE, corner(120, 100)), (EPITHELIAL, disc(60, 70))]),
    ],
    "fold2": [("Adrenal_gland", [(DEAD, disc(128, 128)), (EPITHELIAL, disc(200, 40))])],
    "fold3": [("Ovarian", [(NEOPLASTIC, disc(3, 100)), (NEOPLASTIC, disc(80, 81))])],
}


def pixels(fold: str) -> np.ndarray:
    """(N, 256, 256, 3) uint8 of a fold."""
    rng = np.random.default_rng(int(fold[-1]))
    return rng.integers(0, 255, (len(IMAGES[fold]), 256, 256, 3), np.uint8)


def write_npy(path):
    """Warwick's layout: float64, ids unique within a channel only, the sixth is background."""
    for fold, images in IMAGES.items():
        masks = np.zeros((len(images), 256, 256, 6))
        for image, (_, nuclei) in enumerate(images):
            for kind, mask in nuclei:
                channel = masks[image, :, :, kind]
                channel[mask] = channel.max() + 7 if channel.any() else 7  # 7 in every channel
            masks[image, :, :, 5] = masks[image, :, :, :5].max(axis=2) == 0
        root = path / f"Fold {fold[-1]}"
        for kind, arrays in {
            "images": {"images": pixels(fold).astype(float), "types": [t for t, _ in images]},
            "masks": {"masks": masks},
        }.items():
            folder = root / kind / fold
            folder.mkdir(parents=True)
            for name, array in arrays.items():
                np.save(folder / f"{name}.npy", array)
        (root / "README.md").write_text("6: Background")
    return path


def png(array: np.ndarray) -> dict:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def write_parquet(path, names=CLASSES):
    """RationAI/PanNuke's layout: an image, a 1-bit mask and a number per nucleus."""
    (path / "data").mkdir(parents=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    feature = {"names": list(names), "_type": "ClassLabel"}
    info = {
        "categories": {"feature": feature, "_type": "Sequence"},
        "tissue": {"names": list(TISSUES), "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [
            ("image", image),
            ("instances", pa.list_(image)),
            ("categories", pa.list_(pa.int64())),
            ("tissue", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": info}})},
    )
    for fold, images in IMAGES.items():
        rows = [
            {
                "image": png(array),
                "instances": [png(mask) for _, mask in nuclei],
                "categories": [kind for kind, _ in nuclei],
                "tissue": TYPES[tissue],
            }
            for array, (tissue, nuclei) in zip(pixels(fold), images, strict=True)
        ]
        # a fold may be of several files, which sort in their order
        parts = [rows[:2], rows[2:]] if len(rows) > 2 else [rows]
        for i, part in enumerate(parts):
            name = f"{fold}-{i:05d}-of-{len(parts):05d}.parquet"
            pq.write_table(pa.Table.from_pylist(part, schema), path / "data" / name)
    return path


@pytest.fixture(params=[write_npy, write_parquet], ids=["npy", "parquet"])
def pannuke(request, tmp_path):
    return request.param(tmp_path)


def test_both_distributions_give_the_same_nuclei(pannuke):
    found = find_benchmark(pannuke)
    assert found.name == "pannuke"
    assert found.labels.tolist() == [
        "Neoplastic", "Inflammatory", "Connective", "Epithelial",
        "Dead", "Epithelial", "Neoplastic",
    ]  # fmt: skip
    assert found.group_kind == "image"
    assert found.groups.tolist() == ["fold1/0"] * 2 + ["fold1/2"] * 2 + ["fold2/0"] * 2 + [
        "fold3/0"
    ]
    assert found.batch_variables["fold"].tolist() == ["fold1"] * 4 + ["fold2"] * 2 + ["fold3"]
    tissues = ["Bile Duct"] * 2 + ["Ovarian"] * 2 + ["Adrenal Gland"] * 2 + ["Ovarian"]
    assert found.batch_variables["tissue"].tolist() == tissues
    assert found.notes[0].startswith("5 images, 1 of them without nuclei")
    assert found.notes[1].startswith("1 of 8 nuclei dropped")
    one = pixels("fold1")[0]
    np.testing.assert_array_equal(found.crops[0], one[70:110, 80:120])  # around (100, 90)
    np.testing.assert_array_equal(found.crops[1], one[140:180, 130:170])


def test_a_mask_is_not_its_box(pannuke):
    image = pixels("fold1")[2]
    middle = load(pannuke, centre="box")[0]  # 120..131, 100..111: (125.5, 105.5)
    np.testing.assert_array_equal(middle.crops[2], image[86:126, 106:146])
    # 36 px of mean (121, 105.5) and 27 of (127, 110): (123.57, 107.43)
    mean = load(pannuke)[0]
    np.testing.assert_array_equal(mean.crops[2], image[88:128, 104:144])


@pytest.mark.parametrize(("at", "kept"), [(29, 0), (30, 1), (226, 1), (227, 0)])
def test_sixty_pixels_within_the_image(tmp_path, monkeypatch, at, kept):
    always = (DEAD, disc(128, 128))
    monkeypatch.setitem(IMAGES, "fold2", [("Ovarian", [always, (EPITHELIAL, disc(at, 100, 4))])])
    found = load(write_npy(tmp_path))[0]
    assert (found.labels[found.batch_variables["fold"] == "fold2"] == "Epithelial").sum() == kept


def test_every_rule_is_tried(pannuke):
    counts = tried(pannuke)
    assert len(counts) == 6
    here = next(rule for rule in counts if "60x60 px" in rule and "centroid" in rule)
    assert counts[here]["pannuke"] == find_benchmark(pannuke).counts()


def test_other_numbers_for_classes_are_refused(tmp_path):
    write_parquet(tmp_path, names=("Inflammatory", "Neoplastic", *CLASSES[2:]))
    with pytest.raises(ValueError, match=r"lists Inflammatory, Neopla.*; expected Neopla"):
        load(tmp_path)


def test_bad_folds_say_why(tmp_path):
    write_npy(tmp_path)
    types = tmp_path / "Fold 2/images/fold2/types.npy"
    np.save(types, ["Ovarian", "Ovarian"])
    with pytest.raises(ValueError, match=r"fold2: images \(1, 256, 256, 3\).*types \(2,\)"):
        load(tmp_path)
    np.save(types, ["Brain"])
    with pytest.raises(ValueError, match="unknown tissue 'Brain'"):
        load(tmp_path)
    types.unlink()
    with pytest.raises(FileNotFoundError, match=r"needs types.npy beside it and one fold2/masks"):
        load(tmp_path)
