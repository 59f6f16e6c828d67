"""HEST: Xenium slides as its publisher lays them out, small, and each trap of their files."""

import argparse
import json

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from PIL import Image
from scipy.sparse import csr_array

from evaluate.benchmarks import transcripts
from evaluate.benchmarks.expression import top_genes
from evaluate.benchmarks.find import find_benchmark, find_name
from evaluate.benchmarks.hest import SLIDES, load
from evaluate.commands import prepare

IDS = SLIDES["hest-bowel"]
MPP = dict(zip(IDS, (0.27403, 0.27376, 0.2497, 0.36391, 0.2125), strict=True))
PATIENTS = dict(zip(IDS, ("P1", "P1", "P1", "P2", None), strict=True))
GENES = [f"GENE{i}" for i in range(8)]
CONTROLS = [
    "NegControlProbe_00042",
    "NegControlCodeword_0500",
    "antisense_PROKR2",
    "BLANK_0006",
    "UnassignedCodeword_0001",
    "DeprecatedCodeword_0321",
    "Intergenic_Region_1",
]
SIZE = (900, 700)
CELLS = 40


def as_type(kind: int, ids: list[str | None]):
    """Cell ids as five releases stored them; None is no cell."""
    if kind == 0:
        return pa.array([-1 if i is None else int(i) for i in ids], pa.int32())
    if kind == 1:
        return pa.array(["UNASSIGNED" if i is None else f"a{i}-1" for i in ids])
    if kind == 2:
        return pa.array([b"UNASSIGNED" if i is None else f"a{i}-1".encode() for i in ids])
    if kind == 3:  # a bad cast of bytes
        return pa.array(["" if i is None else f"b'a{i}-1'" for i in ids])
    return pa.array(["UNASSIGNED" if i is None else f"a{i}-1" for i in ids]).dictionary_encode()


def write_slide(path, number: int) -> dict:
    """Write a slide's files; return its counts per cell and gene by pandas, and its centres."""
    name = IDS[number]
    rng = np.random.default_rng(number)
    image = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    options = {"photometric": "rgb", "compression": "zlib"}
    if number != 4:  # one is not tiled: OpenSlide does not know it
        options["tile"] = (256, 256)
    tifffile.imwrite(path / "wsis" / f"{name}.tif", image, **options)
    (path / "st" / f"{name}.h5ad").write_text("bins, not cells: never opened")
    (path / "metadata" / f"{name}.json").write_text(
        json.dumps(
            {
                "pixel_size_um_embedded": 1.0,
                "pixel_size_um_estimated": MPP[name],
                "magnification": "40x",
                "patient": PATIENTS[name],
            }
        )
    )
    # 5 genes of one panel only beside the common ones; all transcripts, good and bad
    panel = [*GENES, *(f"ONLY{number}_{i}" for i in range(5)), *CONTROLS]
    count = 6000
    weight = np.arange(len(panel), 0, -1) ** 1.5
    feature = rng.choice(panel, count, p=weight / weight.sum())
    cell = [None if n == CELLS else str(n) for n in rng.integers(3, CELLS + 1, count)]
    quality = rng.choice([10.0, 19.9, 20.0, 40.0], count).astype(np.float32)
    cells = as_type(number, cell)
    table = {
        "transcript_id": pa.array(np.arange(count)),
        "cell_id": cells,
        "feature_name": pa.array([f.encode() for f in feature]) if number == 2 else feature,
        "qv": quality,
        "he_x": rng.uniform(0, SIZE[0], count),
        "he_y": rng.uniform(0, SIZE[1], count),
    }
    pq.write_table(
        pa.table(table), path / "transcripts" / f"{name}_transcripts.parquet", row_group_size=500
    )
    good = (quality >= 20) & np.array([c is not None for c in cell])
    good &= ~np.isin(feature, CONTROLS)
    counts = pandas.crosstab(np.array(cell, object)[good], feature[good])
    xy = np.stack([rng.uniform(80, SIZE[0] - 80, CELLS), rng.uniform(80, SIZE[1] - 80, CELLS)], 1)
    xy[5] = (4, 4)  # its window leaves the slide
    nuclei = [shapely.Point(p).buffer(9) for p in xy[:-1]]  # the last cell has no nucleus
    ids = [str(n) for n in range(CELLS - 1)]
    nuclei.append(shapely.Point(xy[7] + 30).buffer(4))  # a second, smaller one of cell 7
    ids.append("7")
    index = "cell_id" if number % 2 else "__index_level_0__"
    outlines = {index: as_type(number, ids), "geometry": shapely.to_wkb(nuclei)}
    seg = path / "xenium_seg"
    pq.write_table(pa.table(outlines), seg / f"{name}_xenium_nucleus_seg.parquet")
    shifted = [shapely.box(x - 9, y - 12, x + 15, y + 12) for x, y in xy]  # middle: x + 3
    outlines = {index: as_type(number, [str(n) for n in range(CELLS)])}
    outlines["geometry"] = shapely.to_wkb(shifted)
    pq.write_table(pa.table(outlines), seg / f"{name}_xenium_cell_seg.parquet")
    return {"counts": counts, "xy": xy, "image": image}


@pytest.fixture(scope="module")
def bowel(tmp_path_factory):
    """A download of the five slides, and what is in each by other means."""
    path = tmp_path_factory.mktemp("hest")
    for folder in ("wsis", "st", "metadata", "transcripts", "xenium_seg"):
        (path / folder).mkdir()
    return path, {name: write_slide(path, i) for i, name in enumerate(IDS)}


def best_genes(slides: dict, count: int) -> list[str]:
    """Rank by pandas over the outlined cells: those without transcripts count as zeros."""
    ranks = 0
    for slide in slides.values():
        outlined = [str(n) for n in range(CELLS - 1)]
        mean = slide["counts"].reindex(outlined, fill_value=0)[GENES].mean()
        ranks = ranks + mean.rank(ascending=False)
    return sorted(GENES, key=lambda gene: (ranks[gene], gene))[:count]


def test_targets_are_the_transcripts_of_each_cell(bowel):
    path, slides = bowel
    assert find_name(path) == "hest-bowel"
    found = load("hest-bowel", path, genes=5)[0]
    assert (found.name, found.classes, set(found.labels.tolist())) == ("hest-bowel", (), {""})
    assert found.target_names == tuple(best_genes(slides, 5))
    assert (found.targets.shape, found.targets.dtype) == ((5 * (CELLS - 2), 5), np.float32)
    rows = [str(n) for n in range(CELLS - 1) if n != 5]
    for i, (name, slide) in enumerate(slides.items()):
        # cells 0-2 have no transcript; ids sort as text, as the draw's do
        key = (lambda n: n) if i == 0 else (lambda n: f"a{n}-1")
        ordered = sorted(rows, key=key)
        expected = slide["counts"].reindex(ordered, fill_value=0)[list(found.target_names)]
        np.testing.assert_array_equal(found.targets[found.groups == name], expected)
        assert expected.to_numpy().sum() > 0
        assert (expected.loc[["0", "1", "2"]] == 0).all().all()
        windows = zip(found.crops[found.groups == name], ordered, strict=True)
        for crop, cell in windows:
            side = 40 * 0.25 / MPP[name] if name != "TENX147" else 40  # 0.2497: pixels copied
            x, y = slide["xy"][int(cell)] + 0.5 - side / 2
            if side == 40:
                x, y = np.ceil((x - 0.5, y - 0.5))
            image = Image.fromarray(slide["image"])
            window = (x, y, x + side, y + side)
            expected = image.resize((40, 40), Image.Resampling.BICUBIC, box=window)
            # the polygon around the point has its centroid there but for rounding
            np.testing.assert_allclose(crop, np.asarray(expected), atol=2)


def test_notes_count_what_is_left_out(bowel):
    path, _ = bowel
    notes = load("hest-bowel", path, genes=5)[0].notes
    assert "39 cells with a nucleus outline, 3 of them without transcripts, 1 smaller" in notes[1]
    assert "1 cells with transcripts have none: dropped" in notes[1]
    assert "of quality under 20, " in notes[0]
    assert " of 7 controls left out" in notes[0]
    assert "38 of 38 cells drawn, 1 whose window leaves the slide; 0.27403 µm/px" in notes[-5]


def test_patients_are_not_slides(bowel):
    path, _ = bowel
    found = load("hest-bowel", path, genes=5)[0]
    patient = {slide: set(found.batch_variables["patient"][found.groups == slide]) for slide in IDS}
    assert patient["TENX149"] == patient["TENX148"] == patient["TENX147"] == {"P1"}
    assert patient["TENX111"] == {"unknown (TENX111)"}  # one's own, not shared with other blanks


def test_the_centre_may_be_the_cells(bowel):
    path, slides = bowel
    one = load("hest-bowel", path, genes=5, outline="cell", slides=("TENX147",))[0]
    assert len(one) == CELLS - 1
    x, y = np.ceil(slides["TENX147"]["xy"][0] + (3 - 20, -20)).astype(int)
    expected = slides["TENX147"]["image"][y : y + 40, x : x + 40]
    np.testing.assert_array_equal(one.crops[0], expected)


def test_the_draw_is_of_the_seed_and_the_slide(bowel):
    path, _ = bowel
    few = load("hest-bowel", path, genes=5, cells=10)[0]
    assert all((few.groups == slide).sum() == 10 for slide in IDS)
    again = load("hest-bowel", path, genes=5, cells=10)[0]
    assert again.sha256 == few.sha256
    other = load("hest-bowel", path, genes=5, cells=10, seed=1)[0]
    assert other.sha256 != few.sha256
    alone = load("hest-bowel", path, genes=5, cells=10, slides=("TENX139",))[0]
    np.testing.assert_array_equal(alone.crops, few.crops[few.groups == "TENX139"])


def test_prepare_writes_targets_of_their_own(bowel, tmp_path, capsys):
    path, _ = bowel
    parser = argparse.ArgumentParser()
    prepare.add_flags(parser)
    out = tmp_path / "bowel"
    words = ["hest-bowel", "--raw", path, "--out", out, "--genes", 5, "--cells", 10]
    prepare.run(parser.parse_args([str(word) for word in words]))
    assert "50 nuclei (5 targets, 5 slides)" in capsys.readouterr().out
    targets = np.load(out / "targets.npy")
    assert (targets.shape, targets.dtype) == ((50, 5), np.float32)
    facts = json.loads((out / "benchmark.json").read_text())
    assert len(facts["targets"]) == 5
    found, direct = find_benchmark(out), load("hest-bowel", path, genes=5, cells=10)[0]
    assert found.sha256 == direct.sha256
    assert found.target_names == direct.target_names
    taken = found.take(np.array([3, 1]))
    np.testing.assert_array_equal(taken.targets, targets[[3, 1]])


def test_the_sample_table_stands_in_for_metadata(bowel, tmp_path):
    path, _ = bowel
    for name in ("wsis", "transcripts", "xenium_seg"):
        (tmp_path / name).symlink_to(path / name)
    with pytest.raises(FileNotFoundError, match=r"neither .*TENX147.json nor a row"):
        load("hest-bowel", tmp_path, genes=5, slides=("TENX147",))
    (tmp_path / "assets").mkdir()
    text = "dataset_title,id,pixel_size_um_embedded,pixel_size_um_estimated,patient\n"
    text += "x,TENX147,0.27378,0.2497,P1\n"
    (tmp_path / "assets/HEST_v1_1_0.csv").write_text(text, encoding="utf-8-sig")  # a BOM
    found = load("hest-bowel", tmp_path, genes=5, slides=("TENX147",))[0]
    assert set(found.batch_variables["patient"].tolist()) == {"P1"}
    assert "0.2497 µm/px" in found.notes[-1]


def test_a_slide_without_a_scale_is_taken_with_mpp(bowel, tmp_path):
    path, _ = bowel
    for name in ("wsis", "transcripts", "xenium_seg"):
        (tmp_path / name).symlink_to(path / name)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/TENX147.json").write_text('{"patient": "P1"}')
    with pytest.raises(ValueError, match=r"TENX147: no pixel_size_um_estimated .*; give --mpp"):
        load("hest-bowel", tmp_path, genes=5, slides=("TENX147",))
    found = load("hest-bowel", tmp_path, genes=5, slides=("TENX147",), mpp=0.2497)[0]
    assert found.sha256 == load("hest-bowel", path, genes=5, slides=("TENX147",))[0].sha256


def test_ranks_are_combined_over_common_genes():
    panels = [np.array(["A", "B", "C", "D"]), np.array(["A", "B", "D", "E"])]
    # means: A 9, B 5, C 7, D 1; and A 1, B 30, D 20, E 99: among A, B, D ranks 1 2 3 and 3 1 2
    slides = [
        (panels[0], csr_array(np.array([[9, 5, 7, 1]]))),
        (panels[1], csr_array(np.array([[1, 30, 20, 99]]))),
    ]
    assert top_genes(slides, 3).tolist() == ["B", "A", "D"]
    with pytest.raises(ValueError, match="3 genes are on all slides' panels, fewer than 50"):
        top_genes(slides, 50)


def test_controls_and_ids_by_name():
    assert all(transcripts.is_control(name) for name in (*CONTROLS, "BLANK_01", "xControl"))
    assert not transcripts.is_control("CD4")
    ids = pa.chunked_array([pa.array([12.0, None, -1.0])])  # integers beside a missing one
    found, place = transcripts.words(ids)
    assert found[place].tolist() == ["12", "None", "-1"]
    assert {"None", "-1"} <= transcripts.NO_CELL


def test_counting_does_not_depend_on_the_batches(bowel, monkeypatch):
    path, _ = bowel
    file = path / "transcripts" / "TENX148_transcripts.parquet"
    whole = transcripts.count(file)
    monkeypatch.setattr(transcripts, "ROWS", 37)  # more batches than are merged at once
    parts = transcripts.count(file)
    for a, b in zip(whole[:2], parts[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(whole[2].toarray(), parts[2].toarray())
    assert whole[3] == parts[3]


def test_bad_downloads_say_why(bowel, tmp_path):
    path, _ = bowel
    for name in ("wsis", "transcripts", "xenium_seg", "metadata"):
        (tmp_path / name).mkdir()
        for file in (path / name).glob("TENX147*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    one = {"genes": 5, "slides": ("TENX147",)}
    assert len(load("hest-bowel", tmp_path, **one)[0]) == CELLS - 2
    with pytest.raises(FileNotFoundError, match=r"neither .*TENX148.json"):
        load("hest-bowel", tmp_path, genes=5, slides=("TENX147", "TENX148"))
    facts = tmp_path / "metadata/TENX147.json"
    facts.write_text('{"pixel_size_um_embedded": 0.25, "pixel_size_um_estimated": null}')
    with pytest.raises(ValueError, match="TENX147: no pixel_size_um_estimated"):
        load("hest-bowel", tmp_path, **one)
    facts.write_text('{"pixel_size_um_estimated": 0.25}')
    slide = tmp_path / "wsis/TENX147.tif"
    tifffile.imwrite(slide, np.zeros((500, 600), np.uint16))
    with pytest.raises(ValueError, match=r"a TIFF of uint16 \(500, 600\), not of 8-bit RGB"):
        load("hest-bowel", tmp_path, **one)
    seg = tmp_path / "xenium_seg/TENX147_xenium_nucleus_seg.parquet"
    outlines = pq.read_table(seg)
    other = outlines.set_column(0, outlines.column_names[0], as_type(0, ["9"] * len(outlines)))
    pq.write_table(other, seg)
    with pytest.raises(ValueError, match=r"no cell_id of the transcripts \(a10-1, …\) is one of"):
        load("hest-bowel", tmp_path, **one)
    pq.write_table(outlines.drop_columns(["geometry"]), seg)
    with pytest.raises(ValueError, match="no geometry column"):
        load("hest-bowel", tmp_path, **one)
    seg.unlink()
    with pytest.raises(FileNotFoundError, match=r"TENX147_xenium_nucleus_seg.parquet is not in"):
        load("hest-bowel", tmp_path, **one)


WKB = shapely.to_wkb(shapely.box(0, 0, 9, 9))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"cell_id": ["a"], "geometry": [shapely.to_wkb(shapely.Point(1, 1))]}, "or no polygons"),
        (
            {"cell_id": ["a"], "geometry": [shapely.to_wkb(shapely.Polygon())]},
            "1 outlines are empty",
        ),
        ({"cell_id": ["a"], "geometry": [b"\x01\x03"]}, "a geometry is no WKB"),
        ({"cell_id": ["a"], "geometry": [7]}, "a geometry is no WKB"),
        ({"cell_id": ["a"], "outline": [WKB]}, "no geometry column"),
        ({"geometry": [WKB]}, "no cell_id column"),
        (None, "does not open as Parquet"),
    ],
)
def test_outlines_that_are_none_are_named(tmp_path, columns, said):
    path = tmp_path / "s.parquet"
    path.write_bytes(b"text") if columns is None else pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=rf"s\.parquet.*{said}"):
        transcripts.centres(path)


@pytest.mark.parametrize("bare", [None, shapely.to_wkb(shapely.Polygon()), WKB[:5] + bytes(4)])
def test_an_empty_outline_does_not_shift_the_places_of_others(tmp_path, bare):
    far = shapely.to_wkb(shapely.box(50, 0, 60, 10))
    table = {"cell_id": ["a", "b", "c", "c"], "geometry": [bare, WKB, bare, far]}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    ids, xy, smaller, left = transcripts.centres(tmp_path / "s.parquet")
    assert (ids.tolist(), xy.tolist(), smaller, left) == (["b", "c"], [[4.5, 4.5], [55, 5]], 0, 2)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"cell_id": ["a"], "feature_name": ["G"], "qv": ["40"]}, "qv holds string, and numbers"),
        ({"cell_id": ["a"], "feature_name": ["BLANK_1"]}, "no transcript of a gene lies in a cell"),
        ({"cell_id": ["UNASSIGNED"], "feature_name": ["G"]}, "no transcript of a gene"),
        ({"cell_id": ["a"], "feature_name": ["G"], "qv": [float("nan")]}, "no transcript of a"),
        ({"cell": ["a"], "feature_name": ["G"]}, "no column 'cell_id'"),
        (None, "does not open as Parquet"),
    ],
)
def test_transcripts_that_are_none_are_named(tmp_path, columns, said):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"text") if columns is None else pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=rf"t\.parquet.*{said}"):
        transcripts.count(path)
