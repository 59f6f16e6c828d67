"""Publishers' folders with files missing, broken or of another kind: read, or refused by name."""

import csv
import re

import numpy as np
import pytest
import scipy.io
from PIL import Image

from evaluate.benchmarks.find import find_benchmark, find_benchmarks

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2600000\n"
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
STEM = "TCGA-AN-A0XU-DX1_id-5ea40b25ddda5f83989991fd_left-32501_top-21485_bottom-21806_right-32812"
MIDOG = (
    "image_id,filename,coordinateX,coordinateY,Tumor,Scanner,Origin,Species,expert1,expert2,"
    "expert3,majority"
)
TABLE = "MIDOG25_Atypical_Classification_Train_Set.csv"


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (height, width, 3), np.uint8)


def save(path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_consep(path, splits=("Train", "Test")):
    """Warwick's layout: nuclei of ids 3, 5, 9 … of 7 kinds, the last one at the border."""
    for split in splits:
        for number in (1, 2):
            name = f"{split.lower()}_{number}"
            save(path / split / "Images" / f"{name}.png", noise(300, 200, number))
            ids = np.zeros((200, 300), np.int32)
            xy = []
            for i in range(7):
                x, y = 40 + 30 * i, 60 + 10 * i
                ids[y - 4 : y + 5, x - 6 : x + 7] = 3 + 2 * i
                xy.append((x, y))
            ids[0:5, 0:9] = 40
            xy.append((4, 2))
            kinds = np.array([[*range(1, 8), 2]]).T
            arrays = {
                "inst_map": ids.astype(float),
                "type_map": (ids > 0).astype(float),
                "inst_type": kinds.astype(float),
                "inst_centroid": np.array(xy, float),
            }
            (path / split / "Labels").mkdir(exist_ok=True)
            scipy.io.savemat(path / split / "Labels" / f"{name}.mat", arrays)
            (path / split / "Overlay").mkdir(exist_ok=True)
    return path


def write_nucls(path):
    save(path / "rgb" / f"{STEM}.png", noise(300, 300))
    (path / "csv").mkdir()
    with open(path / "csv" / f"{STEM}.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ",raw_classification,main_classification,super_classification,type,"
            "xmin,ymin,xmax,ymax,coords_x,coords_y".split(",")
        )
        for i in range(8):
            x = 80 + 20 * i
            kinds = ("lymphocyte", "lymphocyte", "sTIL") if i % 2 else (
                "tumor", "tumor_nonMitotic", "tumor_any"
            )  # fmt: skip
            ring = f"{x},{x + 9},{x + 9},{x},{x}", "140,140,149,149,140"
            rows.writerow([i, *kinds, "rectangle", x, 140, x + 9, 149, *ring])
    return path


def write_pannuke(path):
    for fold in "123":
        root = path / f"Fold {fold}"
        masks = np.zeros((2, 256, 256, 6), np.int16)
        masks[:, 100:110, 100:110, int(fold)] = 4
        arrays = {
            "images/images": noise(256, 512, int(fold)).reshape(2, 256, 256, 3),
            "images/types": np.array(["Breast", "Colon"]),
            "masks/masks": masks,
        }
        for name, array in arrays.items():
            folder, name = name.split("/")
            (root / folder / f"fold{fold}").mkdir(parents=True, exist_ok=True)
            np.save(root / folder / f"fold{fold}" / f"{name}.npy", array)
    return path


def write_midog(path):
    rows = [
        f"{i}.png,{i % 2:03d}.tiff,{i},9,x,3D Histech,o,Canine,NMF,NMF,,{'NMF' if i % 3 else 'AMF'}"
        for i in range(1, 8)
    ]
    (path / TABLE).write_text("\n".join([MIDOG, *rows]) + "\n")
    for i in range(1, 8):
        save(path / "images" / f"{i}.png", noise(128, 128, i))
    return path


def write_ami(path):
    rows = [f"{i}.png,{'NMF' if i % 3 else 'AMF'},s{i % 2}" for i in range(7)]
    (path / "labels.csv").write_text("\n".join(["file,majority,slide", *rows]) + "\n")
    for i in range(7):
        save(path / "crops" / f"{i}.png", noise(128, 128, i))
    return path


WRITERS = {
    "consep": write_consep,
    "nucls": write_nucls,
    "pannuke": write_pannuke,
    "midog": write_midog,
    "ami": write_ami,
}


def notes(path) -> str:
    return "\n".join(find_benchmarks(path)[0].notes)


def test_warwicks_consep(tmp_path):
    found = find_benchmark(write_consep(tmp_path))
    assert found.name == "consep"
    assert found.counts() == {"epithelial": 8, "spindle": 12, "inflammatory": 4, "other": 4}
    assert set(found.groups.tolist()) == {"train_1", "train_2", "test_1", "test_2"}
    assert found.notes[1].startswith("4 of 32 nuclei dropped")
    assert found.left_out["whose window leaves the field"] == 4
    pixels = noise(300, 200, 1)
    first = found.take(np.flatnonzero(found.groups == "train_1"))
    assert first.labels[0] == "other"
    np.testing.assert_array_equal(first.crops[0], pixels[40:80, 20:60])


def test_warwicks_consep_within_its_zips_folder(tmp_path):
    write_consep(tmp_path / "CoNSeP", splits=("Train",))
    assert "Train alone: its other half is not there" in notes(tmp_path)
    (tmp_path / "CoNSeP/Train/Labels/train_2.mat").unlink()
    assert "1 images of Train without Labels/*.mat, not used: train_2" in notes(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_systems_leave_behind_is_passed_over(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    before = find_benchmarks(path)[0]
    for folder in [path, *(p for p in path.rglob("*") if p.is_dir())]:
        for file in [p for p in folder.iterdir() if p.is_file()]:
            (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\0\0\0\1Bud1")
        (folder / "__MACOSX").mkdir()
    after = find_benchmarks(path)[0]
    assert (after.sha256, after.notes) == (before.sha256, before.notes)


@pytest.mark.parametrize("kind", WRITERS)
def test_linked_folders_are_entered(tmp_path, kind):
    path = WRITERS[kind](tmp_path)
    before = find_benchmarks(path)[0]
    for folder in [p for p in path.iterdir() if p.is_dir()]:
        away = tmp_path.with_name(tmp_path.name + "-away") / folder.name
        away.parent.mkdir(exist_ok=True)
        folder.rename(away)
        folder.symlink_to(away)
    assert find_benchmarks(path)[0].sha256 == before.sha256


def overwrite(data: bytes):
    def change(file):
        file.write_bytes(data)

    return change


def cut(file):
    file.write_bytes(file.read_bytes()[:-300])


def remove(file):
    file.unlink()


def array(change):
    def rewrite(file):
        np.save(file, change(np.load(file)))

    return rewrite


def mat(**changes):
    """Change or, with None, leave out arrays of a .mat file."""

    def rewrite(file):
        arrays = {k: v for k, v in scipy.io.loadmat(file).items() if not k.startswith("__")}
        for name, change in changes.items():
            arrays[name] = change(arrays[name]) if change else None
        scipy.io.savemat(file, {k: v for k, v in arrays.items() if v is not None})

    return rewrite


def text(old: str, new: str):
    def rewrite(file):
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new, 1))

    return rewrite


def header_alone(file):
    file.write_text(file.read_text().splitlines()[0] + "\n")


def objects(file):
    np.save(file, np.array(["Breast", "Colon"], object), allow_pickle=True)


def grey16(file):
    Image.fromarray(np.full((128, 128), 40000, np.uint16)).save(file)


MAT = "Train/Labels/train_1.mat"
FIELD = "Train/Images/train_1.png"
IMAGES = "Fold 2/images/fold2/images.npy"
TYPES = "Fold 2/images/fold2/types.npy"
MASKS = "Fold 2/masks/fold2/masks.npy"
NUCLS = f"csv/{STEM}.csv"
BAD = [
    ("consep", MAT, overwrite(LFS), "train_1.mat is a Git LFS pointer"),
    ("consep", MAT, overwrite(HTML), "train_1.mat is a web page ('Sign in')"),
    ("consep", MAT, overwrite(b""), "train_1.mat is empty"),
    ("consep", MAT, overwrite(b"inst_map,1\n" * 50), "does not open as a MATLAB file"),
    ("consep", MAT, cut, "does not open as a MATLAB file"),
    ("consep", MAT, overwrite(b"\x89HDF\r\n\x1a\n" + bytes(500)), "train_1.mat"),
    ("consep", MAT, mat(inst_map=None), "no 'inst_map'; it holds"),
    ("consep", MAT, mat(inst_type=None), "no 'inst_type'; it holds"),
    ("consep", MAT, mat(inst_map=lambda a: a.T), "inst_map is (300, 200), its image (200, 300)"),
    ("consep", MAT, mat(inst_type=lambda a: a[:5]), "inst_type has 5 values for 8 nuclei"),
    ("consep", MAT, mat(inst_type=lambda a: a + 1), "unknown inst_type 8"),
    ("consep", MAT, mat(inst_type=lambda _: np.array(["x"], object)), "no array of numbers"),
    ("consep", MAT, mat(inst_centroid=lambda a: a[:, ::-1]), "are not the middles"),
    ("consep", MAT, mat(inst_centroid=lambda a: a * 4), "are not the middles"),
    ("consep", FIELD, remove, "an image that is not there"),
    ("consep", FIELD, overwrite(LFS), "train_1.png is a Git LFS pointer"),
    ("consep", FIELD, cut, "neither a slide nor an image that opens"),
    ("nucls", NUCLS, remove, "no nucleus left"),
    ("nucls", NUCLS, overwrite(LFS), f"{STEM}.csv"),
    ("nucls", NUCLS, overwrite(HTML), f"{STEM}.csv"),
    ("nucls", NUCLS, overwrite(b""), f"{STEM}.csv"),
    ("nucls", NUCLS, header_alone, "no nucleus left"),
    ("nucls", NUCLS, text("140,89,149", "x,89,149"), "ymin is 'x'"),
    ("nucls", NUCLS, text("tumor_any", "tumour"), "unknown super_classification 'tumour'"),
    ("nucls", f"rgb/{STEM}.png", remove, "has no image"),
    ("nucls", f"rgb/{STEM}.png", overwrite(HTML), "is a web page"),
    ("nucls", f"rgb/{STEM}.png", cut, "an image that opens"),
    ("pannuke", MASKS, remove, "needs types.npy beside it and one fold2/masks.npy"),
    ("pannuke", IMAGES, remove, "fold2 has no fold2/images.npy"),
    ("pannuke", TYPES, remove, "needs types.npy beside it"),
    ("pannuke", MASKS, array(lambda a: a[..., :5]), "(2, 256, 256, 5); expected (N, N, N, 6)"),
    ("pannuke", MASKS, array(lambda a: a[:1]), "masks (1, 256, 256, 6)"),
    ("pannuke", MASKS, array(lambda a: a.transpose(0, 3, 1, 2)), "expected (N, N, N, 6)"),
    ("pannuke", MASKS, array(lambda a: a[0]), "(256, 256, 6); expected"),
    ("pannuke", IMAGES, array(lambda a: a.transpose(0, 3, 1, 2)), "expected (N, N, N, 3)"),
    ("pannuke", IMAGES, array(lambda a: a[:, :128]), "images (2, 128, 256, 3)"),
    ("pannuke", IMAGES, array(lambda a: a / 255), "is scaled to 0-1"),
    ("pannuke", IMAGES, array(lambda a: np.where(a > 9, np.nan, a)), "image 0 holds pixels that"),
    ("pannuke", IMAGES, array(lambda a: a * 200.0), "has grey levels of"),
    ("pannuke", IMAGES, array(lambda a: a.astype(np.int16) - 9), "has grey levels of -8"),
    ("pannuke", IMAGES, array(lambda a: a > 9), "image 0 holds bool, no grey levels"),
    ("pannuke", MASKS, array(lambda a: np.where(a > 0, np.nan, 0)), "mask 0 holds what is no id"),
    ("pannuke", TYPES, array(lambda a: a[:1]), "types (1,)"),
    ("pannuke", TYPES, objects, "holds Python objects"),
    ("pannuke", TYPES, array(lambda _: np.array([1, 2])), "unknown tissue 1"),
    ("pannuke", IMAGES, overwrite(LFS), "images.npy is a Git LFS pointer"),
    ("pannuke", MASKS, overwrite(HTML), "masks.npy is a web page"),
    ("pannuke", IMAGES, cut, "does not open as an array"),
    ("pannuke", TYPES, overwrite(b"Breast\nColon\n"), "text, does not open as an array"),
    ("midog", TABLE, header_alone, "a header and no rows"),
    ("midog", TABLE, overwrite(b""), TABLE),
    ("midog", TABLE, overwrite(LFS), TABLE),
    ("midog", TABLE, overwrite(HTML), TABLE),
    ("midog", TABLE, text("3D Histech", "Leica"), "unknown scanner 'Leica'"),
    ("midog", TABLE, text("majority", "label"), "no column 'majority'"),
    ("midog", "images/3.png", remove, "names 3.png"),
    ("midog", "images/3.png", overwrite(LFS), "3.png is a Git LFS pointer"),
    ("midog", "images/3.png", cut, "3.png is neither"),
    ("midog", "images/3.png", grey16, "not of 8 bits"),
    ("ami", "labels.csv", header_alone, "a header and no rows"),
    ("ami", "labels.csv", text("1.png,NMF", "1.png,maybe"), "unknown label 'maybe'"),
    ("ami", "labels.csv", text("1.png,NMF", "0.png,NMF"), "different labels"),
    ("ami", "labels.csv", text("1.png,NMF,s1", "1.png,NMF,"), "1 rows have no slide, the first"),
    ("nucls", NUCLS, text(",140,89,149", ",140,79,149"), "the box of nucleus 1 ends before"),
    ("nucls", NUCLS, text(",140,89,149", ",150,89,149"), "the box of nucleus 1 ends before"),
    (
        "nucls",
        NUCLS,
        text(",80,140,89", ",-900,140,1069"),
        "nucleus 1, from -900, 140 to 1069, 149",
    ),
    ("ami", "labels.csv", text("1.png", "/data/1.png"), "names /data/1.png, which leads out of"),
    ("ami", "labels.csv", text("1.png", "../crops/1.png"), "names ../crops/1.png, which leads"),
    ("ami", "crops/1.png", remove, "names 1.png"),
    ("ami", "crops/1.png", overwrite(b""), "1.png is empty"),
]


@pytest.mark.parametrize(("kind", "name", "change", "words"), BAD)
def test_a_bad_file_is_refused_by_name(tmp_path, kind, name, change, words):
    change(WRITERS[kind](tmp_path) / name)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        find_benchmarks(tmp_path)


def test_a_nucls_image_without_a_csv_is_named(tmp_path):
    write_nucls(tmp_path)
    other = STEM.replace("A0XU", "A0ZZ")
    save(tmp_path / "rgb" / f"{other}.png", noise(300, 300))
    assert f"1 images beside them have no labels, hence are not used: {other}" in notes(tmp_path)


def test_an_ami_br_crop_of_two_names_is_in_one_fold(tmp_path):
    write_ami(tmp_path)
    save(tmp_path / "crops/copy.png", noise(128, 128, 1))
    with open(tmp_path / "labels.csv", "a") as file:
        file.write("./2.png,NMF,s0\ncopy.png,NMF,s1\n")
    found = find_benchmark(tmp_path)
    assert found.twins is not None and found.twins[1] == found.twins[8]
    assert "2 of 9 rows repeat a nucleus" in notes(tmp_path)


def test_a_nucls_nucleus_given_twice_is_in_one_fold(tmp_path):
    file = write_nucls(tmp_path) / NUCLS
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[1]]) + "\n")
    found = find_benchmark(f"{tmp_path}:super")
    assert found.twins[0] == found.twins[-1]
    assert "1 of 9 rows repeat a nucleus" in notes(tmp_path)


def test_two_folds_of_three_are_said(tmp_path):
    write_pannuke(tmp_path)
    (tmp_path / "Fold 3").rename(tmp_path.with_name(tmp_path.name + "-3"))
    assert "fold1, fold2 alone: the publisher has three folds" in notes(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("benchmark.json", overwrite(b"{"), "is no JSON"),
        ("benchmark.json", overwrite(b"[]"), "format none"),
        ("benchmark.json", text('"name"', '"nome"'), "lacks 'name'; prepare it again"),
        ("benchmark.json", text('"format": 1', '"format": 9'), "of format 9"),
        ("crops.npy", overwrite(LFS), "crops.npy is a Git LFS pointer"),
        ("crops.npy", cut, "does not open as an array"),
        ("crops.npy", array(lambda a: a[..., 0]), "expected (N, N, N, 3)"),
        ("cells.parquet", overwrite(HTML), "cells.parquet is a web page"),
        ("cells.parquet", cut, "cut short"),
        ("cells.parquet", overwrite(b"text"), "does not open"),
    ],
)
def test_a_bad_prepared_folder_is_refused_by_name(tmp_path, name, change, words):
    from evaluate.benchmarks.prepared import save as prepare

    (tmp_path / "raw").mkdir()
    prepare(find_benchmarks(write_ami(tmp_path / "raw")), tmp_path / "prepared")
    change(tmp_path / "prepared" / name)
    with pytest.raises(ValueError, match=re.escape(words)):
        find_benchmarks(tmp_path / "prepared")
