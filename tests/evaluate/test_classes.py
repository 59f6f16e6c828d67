"""A classifier that is kept, applied, refused where it does not fit, and read back by others."""

import json
import shutil
from dataclasses import replace

import anndata
import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from PIL import Image

from evaluate.baselines import Morphology
from evaluate.benchmark import Benchmark
from evaluate.classes import truth
from evaluate.classes.apply import Task, classify, counts_so_far, slides_of
from evaluate.classes.apply_shards import classify_shards
from evaluate.classes.calls import NONE, Calls, call
from evaluate.classes.classifier import load, save
from evaluate.classes.counts import Count
from evaluate.classes.fit import cool, fit, without
from evaluate.classes.picture import GREY
from evaluate.classes.report import save_confusion, save_counts, save_slide
from evaluate.maps.colouring import rgb
from evaluate.probes.assess import Settings
from evaluate.report.figures import read_entries, read_table
from evaluate.report.report import write_report
from evaluate.slides.extraction import find, open_nuclei
from evaluate.slides.outputs import write_file

SETTINGS = Settings(5, 0, None, None, 0, 0)
SLIDE = "PAINTED-0001"


class Stub:
    """An encoder of any width, its embedding made of the crops' mean colours."""

    components, cached, input_px = None, False, None

    def __init__(self, name="stub", kind="stub", width=76):
        self.name, self.kind, self.width = name, kind, width

    def embed(self, crops):
        mean = crops.reshape(len(crops), -1, 3).mean(axis=1, dtype=np.float32) / 255
        return np.repeat(mean, -(-self.width // 3), axis=1)[:, : self.width]

    def blocks(self, width):
        return (width,)

    def manifest(self):
        return {"name": self.name, "kind": self.kind, "precision": "fp32"}


def benchmark(labels, groups, side=40, seed=0):
    crops = np.random.default_rng(seed).integers(0, 255, (len(labels), side, side, 3), np.uint8)
    classes = tuple(dict.fromkeys(labels))
    return Benchmark("own", crops, np.array(labels), classes, np.array(groups), "slide",
                     batch_variables={"slide": np.array(groups)})  # fmt: skip


def separable(classes=("a", "b", "c"), each=40, spread=1.0, seed=0):
    """Points about a corner for each class, in groups that hold all classes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(classes, each)
    centres = np.eye(len(classes), 6) * 3
    x = np.repeat(centres, each, axis=0) + rng.normal(0, spread, (len(labels), 6))
    return x, benchmark(labels.tolist(), [f"s{i % 5}.svs" for i in range(len(labels))])


@pytest.fixture(scope="module")
def fitted(cells):
    """A classifier of Morphology's width, and its encoder, on crops of any content."""
    encoder = Morphology("morphology")
    nuclei = open_nuclei(cells, find(cells, SLIDE))
    area = nuclei.table["area_um2"].to_numpy()
    measured = encoder.embed(nuclei.crops(np.arange(len(nuclei)), 40))
    labels = np.where(area > np.median(area), "large", "small")
    groups = [f"g{i % 5}" for i in range(len(labels))]
    classifier = fit(encoder, measured, benchmark(labels.tolist(), groups), SETTINGS, "kinds")
    return classifier, encoder, nuclei, labels


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c"), ("x/y", "é", "<t>", "d")])
def test_what_is_kept_says_what_was_fitted(classes, tmp_path):
    x, own = separable(classes)
    classifier = fit(Stub(), x, own, SETTINGS, "kept")
    save(classifier, tmp_path / "kept")
    assert {p.name for p in (tmp_path / "kept").iterdir()} == {
        "classifier.json", "model.safetensors",
    }  # fmt: skip
    again = load(tmp_path / "kept")
    np.testing.assert_array_equal(again.probabilities(x), classifier.probabilities(x))
    assert again.classes == classes and again.sha256 == classifier.sha256
    p = again.probabilities(x)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (np.array(classes)[p.argmax(axis=1)] == own.labels).mean() > 0.9
    facts = again.facts
    assert facts["training"]["nuclei"] == dict.fromkeys(classes, 40)
    assert set(facts["scores"]) == {"stratified", "grouped"}
    assert facts["scores"]["grouped"]["classes"][classes[0]]["nuclei"] == 40


def test_the_regression_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, own = separable(spread=2.5)
    classifier = fit(Stub(), x, own, SETTINGS)
    scaled = StandardScaler().fit_transform(x) / np.sqrt(x.shape[1])  # a total variance of 1
    plain = LogisticRegression(C=classifier.facts["C"], tol=1e-10, max_iter=10_000)
    expected = plain.fit(scaled, own.labels).predict_proba(scaled)
    tempered = expected ** (1 / classifier.temperature)
    tempered /= tempered.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(x), tempered, atol=2e-3)


def test_two_groups_are_too_few_for_scores_with_groups_whole_and_that_is_said():
    x, own = separable()
    two = replace(own, groups=np.array([f"g{i % 2}" for i in range(len(own))]))
    facts = fit(Stub(), x, two, SETTINGS).facts
    assert set(facts["scores"]) == {"stratified"} and "no grouped scores" in facts["no_grouped"]


def test_temperature_undoes_what_made_probabilities_too_sure():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, (5000, 3))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    drawn = (p.cumsum(axis=1) > rng.random((5000, 1))).argmax(axis=1)
    sure = p**4 / (p**4).sum(axis=1, keepdims=True)
    assert cool(sure, drawn) == pytest.approx(4, rel=0.1)
    assert cool(p, drawn) == pytest.approx(1, rel=0.1)


def test_groups_left_out_are_named_by_file_or_stem():
    own = benchmark(list("ababab"), ["s1.svs", "s1.svs", "s2.svs", "s2.svs", "s3.svs", "s3.svs"])
    np.testing.assert_array_equal(without(own, ["s1", "s3.svs"]), [2, 3])
    with pytest.raises(ValueError, match="--without s9: own has no such group"):
        without(own, ["s9"])


def test_another_encoder_scale_or_window_is_refused_by_name():
    x, own = separable()
    classifier = fit(Stub("mine", "run"), x, own, SETTINGS, "kept")
    classifier.check_encoder(Stub("renamed", "run"))
    with pytest.raises(ValueError, match=r"kept was fitted on .*mine \(run\).*is theirs \(hub\)"):
        classifier.check_encoder(Stub("theirs", "hub"))
    classifier.check_scale("s", 0.25)
    classifier.check_scale("s", 0.5, any_scale=True)
    with pytest.raises(ValueError, match=r"slide s is at 0.5 µm/px, resampled; classifier kept"):
        classifier.check_scale("s", 0.5)
    wide = fit(Stub(), x, benchmark(own.labels.tolist(), own.groups, 80), SETTINGS, "wide")
    with pytest.raises(ValueError, match=r"windows of 80 px at 0.25 µm/px; cells holds crops"):
        wide.check_crops("cells", 60)
    with pytest.raises(ValueError, match="takes embeddings of 6 numbers, found 7"):
        classifier.probabilities(np.zeros((2, 7)))


def test_pixels_and_what_has_no_classes_are_refused():
    x, own = separable()
    stub = Stub()
    stub.components = 3
    with pytest.raises(ValueError, match="reduced by a PCA"):
        fit(stub, x, own, SETTINGS)
    bare = replace(own, labels=np.full(len(own), ""), classes=())
    with pytest.raises(ValueError, match="own has no classes"):
        fit(Stub(), x, bare, SETTINGS)


def fact(**changed):
    return lambda text: json.dumps(json.loads(text) | changed).encode()


def weights(name, changed):
    def rewrite(data):
        arrays = safetensors.numpy.load(data)
        return safetensors.numpy.save(arrays | {name: np.ascontiguousarray(changed(arrays[name]))})

    return rewrite


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A classifier's folder, to be copied and damaged."""
    x, own = separable()
    folder = tmp_path_factory.mktemp("kept")
    save(fit(Stub(), x, own, SETTINGS), folder)
    return folder


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("classifier.json", lambda t: t[:40], "is no JSON"),
        ("classifier.json", lambda t: t.replace(b'"format": 1', b'"format": 2'), "of format 2"),
        ("classifier.json", lambda t: t.replace(b'"window_px"', b'"other"'), "lacks 'window_px'"),
        ("classifier.json", lambda t: t.replace(b'"mpp": 0.25', b'"mpp": 0.5'), "at 0.5 µm/px"),
        ("classifier.json", fact(classes=["b", "c"]), r"not those of training.nuclei \(a, b, c\)"),
        ("classifier.json", fact(classes=["b", "a", "c"]), "in their order"),
        ("classifier.json", fact(classes=["a", "a", "c"]), "no names of two or more"),
        ("classifier.json", fact(classes="abc"), "no names of two or more"),
        ("classifier.json", fact(classes=None), "no names of two or more"),
        ("classifier.json", fact(training=[]), r"training.nuclei \(none\)"),
        ("classifier.json", fact(training={"nuclei": 7}), r"training.nuclei \(none\)"),
        ("classifier.json", fact(colours={"a": "#ff0000"}), "the colour of class 'b' is None"),
        ("classifier.json", fact(colours=["#ff0000"] * 3), "the colour of class 'a' is None"),
        ("classifier.json", lambda t: t.replace(b'"#', b'"'), "not #rrggbb"),
        ("classifier.json", lambda t: t.replace(b'"kind": "stub"', b'"kind": "run"'), "was edited"),
        ("classifier.json", fact(encoder="stub"), "was edited"),
        ("classifier.json", fact(encoder_sha256=None), "was edited"),
        ("classifier.json", fact(window_px="40"), "a window of '40' px"),
        ("classifier.json", fact(window_px=-40), "a window of -40 px"),
        ("classifier.json", fact(temperature=0), "a temperature of 0"),
        ("classifier.json", fact(temperature=float("nan")), "a temperature of nan"),
        ("classifier.json", fact(scores={"grouped": {}}), "its scores are not what"),
        ("classifier.json", fact(calibration_error=None), "its scores are not what"),
        ("classifier.json", lambda t: t.replace(b'"training"', b'"t"', 1), "lacks 'training'"),
        ("classifier.json", lambda t: b"[]", "of format none"),
        ("model.safetensors", weights("scale", lambda a: a * 0), "'scale' is not above 0"),
        ("model.safetensors", weights("scale", lambda a: -a), "'scale' is not above 0"),
        ("model.safetensors", weights("weights", lambda a: a * np.nan), "finite numbers"),
        ("model.safetensors", weights("bias", lambda a: a[:2]), "finite numbers"),
        ("model.safetensors", weights("mean", lambda a: a[0]), "finite numbers"),
        ("model.safetensors", weights("weights", lambda a: a.T), "finite numbers"),
        ("model.safetensors", lambda t: t[:90], "does not open"),
        ("model.safetensors", lambda t: None, "no model.safetensors"),
    ],
)  # fmt: skip
def test_a_damaged_classifier_is_named(name, damage, said, kept, tmp_path):
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    left = damage((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    if left is not None:
        (tmp_path / name).write_bytes(left)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load(tmp_path)


def test_files_hold_classes_that_others_open(fitted, tmp_path):
    classifier, encoder, nuclei, labels = fitted
    embeddings = encoder.embed(nuclei.crops(np.arange(len(nuclei)), 40))
    calls = call(classifier, embeddings, 0.8)
    assert set(calls.labels.tolist()) == {"small", "large", ""}
    assert (calls.labels[calls.labels != ""] == labels[calls.labels != ""]).mean() > 0.85
    for ending in ("geojson", "h5ad", "parquet", "png"):
        write_file(tmp_path / f"my.{ending}", encoder, nuclei, embeddings, calls)
    adata = anndata.read_h5ad(tmp_path / "my.h5ad")
    assert adata.obs["class"].cat.categories.tolist() == list(classifier.classes)
    assert len(adata.uns["class_colors"]) == 2 and adata.uns["class_colors"][0].startswith("#")
    np.testing.assert_array_equal(adata.obs["class"].isna(), calls.labels == "")
    np.testing.assert_allclose(adata.obsm["probabilities"], calls.probabilities)
    table = pq.read_table(tmp_path / "my.parquet").to_pydict()
    assert table["class"] == [kind or None for kind in calls.labels.tolist()]
    np.testing.assert_allclose(table["probability small"], calls.each()["probability small"])
    features = json.loads((tmp_path / "my.geojson").read_text())["features"]
    found = [f["properties"].get("classification", {"name": ""}) for f in features]
    assert [one["name"] for one in found] == calls.labels.tolist()
    colours = {one["name"]: one["color"] for one in found if one["name"]}
    assert colours[classifier.classes[0]] == [0, 114, 178]
    assert features[0]["properties"]["measurements"]["probability"] > 0.4
    with Image.open(tmp_path / "my.png") as picture:
        width, height = nuclei.record["width"], nuclei.record["height"]
        found = [name for name, number in calls.counts().items() if number]
        assert picture.size[0] >= width and picture.size[1] == height + 28 * len(found)
        for line, name in enumerate(found):  # its colour beside its name
            shown = picture.getpixel((14, height + 28 * line + 14))
            assert shown == rgb(classifier.colours.get(name, GREY))


def test_a_cohort_is_classified_counted_and_reported(fitted, cells, tmp_path):
    classifier, encoder, nuclei, _ = fitted
    records, empty = slides_of(cells, classifier)
    assert not empty and len(records) > 1
    task = Task(classifier, encoder, tmp_path)
    counts = [classify(r, cells, task) for r in records]
    mark = tmp_path / "classes" / "kinds" / f"{SLIDE}.json"
    before = mark.stat().st_mtime_ns
    again = classify(records[0], cells, task)  # done: not written anew
    assert again == counts[0] and mark.stat().st_mtime_ns == before
    earlier = mark.read_text()
    mark.write_text(earlier.replace('"format": 2', '"format": 1'))  # '' stood for null there
    assert classify(nuclei.record, cells, task) in counts
    assert mark.read_text() == earlier
    assert counts_so_far(task) == counts
    assert counts_so_far(replace(task, least=0.5)) == []
    facts = json.loads(earlier)
    for damaged in ([], facts | {"count": {"slide": "s"}}, facts | {"count": None}):
        mark.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=r"holds no counts of `apply`.*delete it and apply"):
            counts_so_far(task)
    mark.write_text(earlier)
    one = counts[[c.slide for c in counts].index(SLIDE)]
    assert one.total == len(nuclei) and 0 < one.tissue_mm2 < 1
    assert one.density("large") == pytest.approx(one.nuclei["large"] / one.tissue_mm2)
    table = pq.read_table(mark.with_suffix(".parquet"))
    assert table["key"].to_pylist() == nuclei.keys() and "embedding" not in table.column_names
    embeddings = encoder.embed(nuclei.crops(np.arange(len(nuclei)), 40))
    calls = call(classifier, embeddings)
    save_slide(nuclei, calls, one, tmp_path)
    header, rows = read_table(save_counts(classifier, counts, 0.0, tmp_path))
    assert header[2:] == ["nuclei", "large", "small", NONE] or header[3:5] == ["small", "large"]
    assert [int(row[2]) for row in rows] == [c.total for c in counts]
    write_report(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<section id="slides">' in page and '<ul class="legend">' in page
    assert sum(entry.section == "Slides" for entry in read_entries(tmp_path)) == 5


def test_a_sample_of_a_slides_nuclei_stands_for_all():
    one = Count("s", "", {"a": 10, NONE: 0}, 2.0, 0.25)
    assert one.density("a") == 20
    assert Count("s", "", {"a": 10, NONE: 0}, None).density("a") is None


def test_annotated_nuclei_are_compared_with_the_detected_ones(fitted, tmp_path):
    classifier, _, nuclei, _ = fitted
    places = np.stack([nuclei.table[a].to_numpy() for a in "xy"], axis=1)[:4]
    p = np.zeros((len(nuclei), 2), np.float32)
    large, small = (classifier.classes.index(n) for n in ("large", "small"))
    p[:, small] = 0.9
    p[0] = 0.5
    p[1] = 0
    p[1, large] = 1
    calls = Calls(classifier, p, 0.6)
    rows = [f"{SLIDE}.tiff,{x + 2},{y},large" for x, y in places]
    rows += [f"other.tiff,{places[0][0]},1,small", f"{SLIDE}.tiff,-500,-500,small",
             f"{SLIDE}.tiff,1,1,nan"]  # fmt: skip
    (tmp_path / "cells.csv").write_text("\n".join(["image,x,y,label", *rows]) + "\n")
    known = truth.read_truth(tmp_path)
    pairs = truth.confusion(known, nuclei, calls)
    assert pairs == {
        ("large", NONE): 1, ("large", "large"): 1, ("large", "small"): 2,
        ("small", truth.ABSENT): 1,
    }  # fmt: skip
    none, foreign = truth.remarks(known, {SLIDE}, ("large", "tall"), pairs)
    assert none == "1 of 6 nuclei are of no slide here: other"
    assert foreign.startswith("small: no class of the classifier, which has large, tall;")
    lost = truth.remarks(known, {SLIDE, "other"}, ("large",), {("large", truth.ABSENT): 9})
    assert lost[0].startswith("9 of 9 nuclei are not found within 4 µm: are x and y px")
    with pytest.raises(ValueError, match=rf"none of its slides \({SLIDE}, other\) is there"):
        truth.remarks(known, {"elsewhere"}, ("large",), {})
    accuracy, called, total = truth.agreement(pairs)
    assert (called, total) == (3, 5) and accuracy == pytest.approx(1 / 3)
    said = save_confusion(classifier, [SLIDE], pairs, tmp_path)
    assert "1 slide that it was not fitted on" in said
    header, table = read_table(tmp_path / "tables" / "classes--kinds--confusion.csv")
    assert header[-2:] == [NONE, truth.ABSENT]
    assert dict(zip(header[1:], table[0][1:], strict=True)).keys() >= {"large", "small"}
    assert sum(int(n) for row in table for n in row[1:]) == 5


def test_shards_are_classified_in_the_order_of_their_index(fitted, shards_folder, tmp_path):
    classifier, encoder, _, _ = fitted
    path, counts = classify_shards(shards_folder, Task(classifier, encoder, tmp_path, 0.7))
    table, index = pq.read_table(path), pq.read_table(shards_folder / "index.parquet")
    assert table["nucleus"].to_pylist() == index["nucleus"].to_pylist()
    assert sum(one.total for one in counts) == len(index)
    assert all(one.tissue_mm2 is None for one in counts)
    called = [kind for kind in table["class"].to_pylist() if kind]
    assert len(called) == sum(sum(one.nuclei.values()) - one.nuclei[NONE] for one in counts)
    rows = save_counts(classifier, counts, 0.7, tmp_path, "mine")
    assert rows.name == "classes--kinds--counts--mine.csv"  # beside those of cells
