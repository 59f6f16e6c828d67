"""Segmentations of programs met less often: HoVer-Net, scikit-image, tables without µ."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from extract.segment.imported import segment
from extract.segment.nuclei_file import open_nuclei
from extract.segment.options import Import
from extract.slides import Entry
from tests.extract.odd_nuclei import read, ring


class OpenSlide:
    """What `segment` asks of an open slide."""

    def __init__(self, mpp: float = 0.25, power: str | None = "40"):
        self.mpp, self.width, self.height = mpp, 4000, 4000
        self.properties = {"openslide.objective-power": power} if power else {}


def hovernet(mag: float | None = 40, count: int = 12) -> dict:
    """Return what HoVer-Net's run_infer writes: nuclei by number, contours as whole px."""
    nuclei = {}
    for i in range(count):
        contour = [[round(x), round(y)] for x, y in ring(100 + 50 * i)[:-1]]
        nuclei[str(3 * i + 1)] = {
            "bbox": [[84, 84 + 50 * i], [116, 116 + 50 * i]],
            "centroid": [100.0 + 50 * i, 100.0],
            "contour": contour,
            "type_prob": 0.98 if i else None,
            "type": i % 3 if i else None,
        }
    return {"mag": mag, "nuc": nuclei}


def imported(tmp_path, slide: OpenSlide, data: dict, mpp: float | None = None):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(data))
    entry = Entry("s", tmp_path / "s.svs", nuclei=path)
    return segment(slide, entry, Import(str(path), mpp=mpp, origin=None))


@pytest.mark.parametrize("indent", [None, 1])
def test_hovernets_nuclei_have_outlines_and_their_types(tmp_path, indent):
    found, left_out, _ = read(tmp_path, json.dumps(hovernet(), indent=indent))
    assert np.abs(found.xy - [(100 + 50 * i, 100) for i in range(12)]).max() < 0.5
    assert found.labels[:4] == [None, "1", "2", "0"]  # its models name them; the file does not
    assert (found.polygons.present.all(), left_out) == (True, {})


@pytest.mark.parametrize(
    ("mag", "mpp", "power", "factor"),
    [
        (40, 0.2525, "40", 1),
        (20, 0.25, "40", 2),
        (40, 0.5, "20", 0.5),
        (None, 0.25, None, 1),  # of a tile
        (40, 0.25, None, 1),
        (40, 0.23, None, 1),
    ],
)
def test_hovernets_places_count_in_px_at_its_power(tmp_path, mag, mpp, power, factor):
    data = hovernet(mag)
    found, about = imported(tmp_path, OpenSlide(mpp, power), data)
    assert found.xy[1] == pytest.approx((150 * factor, 100 * factor), abs=0.5)
    assert about["version"] == "HoVer-Net"
    assert any(f"px at {mag}X" in r for r in about["remarks"]) == (mag is not None)


def test_a_power_that_cannot_be_compared_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"px at 20X, and the slide .* say with --from-mpp"):
        imported(tmp_path, OpenSlide(0.25, None), hovernet(20))
    found, _ = imported(tmp_path, OpenSlide(0.25, None), hovernet(20), mpp=0.5)
    assert found.xy[1] == pytest.approx((300, 200), abs=0.5)


TABLES = {
    "QuPath without µ": (
        "Image\tObject type\tClassification\tCentroid X um\tCentroid Y um\n"
        "s.svs\tDetection\tTumor\t10.5\t20.5\n",
        [(10.5, 20.5)],
        ["Tumor"],
    ),
    "scikit-image": (
        "label,area,centroid-0,centroid-1\n"
        + "".join(f"{i},300,{20 * i},{40 * i}\n" for i in range(1, 8)),
        [(40 * i, 20 * i) for i in range(1, 8)],
        None,
    ),
    "numbers as pandas writes them": (
        "label,x,y,class\n" + "".join(f"{i}.0,{40 * i},5,{'ab'[i % 2]}\n" for i in range(1, 7)),
        [(40 * i, 5) for i in range(1, 7)],
        ["b", "a"] * 3,
    ),
    "few classes called by numbers": ("x,y,label\n1,2,1\n30,2,2\n60,2,3\n", None, ["1", "2", "3"]),
    "many nuclei of classes called by numbers": (
        "x,y,label\n" + "".join(f"{40 * i},2,{i % 5}\n" for i in range(6)),
        None,
        ["0", "1", "2", "3", "4", "0"],
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_of_other_programs(tmp_path, case):
    text, xy, labels = TABLES[case]
    found, _, remarks = read(tmp_path, text, "s.csv")
    assert xy is None or found.xy.tolist() == [list(place) for place in xy]
    assert found.labels == labels
    assert ("numbers the nuclei" in " ".join(remarks)) == (text.count("label,") > 0)


def test_numbers_of_nuclei_in_geoparquet_are_no_classes(tmp_path):
    shapes = [shapely.box(20 * i, 0, 20 * i + 9, 9) for i in range(8)]
    columns = {"geometry": shapely.to_wkb(shapes).tolist(), "label": list(range(8))}
    for more in ({}, {"cell_type": ["T", "B"] * 4}):
        pq.write_table(pa.table(columns | more), tmp_path / "s.parquet")
        file = open_nuclei(tmp_path / "s.parquet")
        labels = [label for rings in file.nuclei for label in rings.labels]
        assert labels == more.get("cell_type", [None] * 8)
        assert "numbers the nuclei" in file.remarks[0]
