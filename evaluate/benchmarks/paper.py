"""The paper's counts of nuclei, Tables 3, 4, 5 and 8, beside ours."""

TABLES = {  # benchmark: the table, and its numbers
    "nucls-super": ("Table 3a", {"tumor_any": 16052, "sTIL": 13642, "nonTIL_stromal": 7613}),
    "nucls-main": (
        "Table 3b",
        {
            "tumor_nonMitotic": 15874,
            "lymphocyte": 9617,
            "nonTILnonMQ_stromal": 6634,
            "plasma_cell": 4025,
            "macrophage": 979,
            "tumor_mitotic": 178,
        },
    ),
    "nucls-raw": (
        "Table 3c",
        {
            "tumor": 15874,
            "lymphocyte": 9617,
            "fibroblast": 6258,
            "plasma_cell": 4025,
            "macrophage": 979,
            "ductal_epithelium": 399,
            "vascular_endothelium": 376,
            "apoptotic_body": 293,
            "mitotic_figure": 178,
            "neutrophil": 35,
            "myoepithelium": 33,
            "eosinophil": 2,
        },
    ),
    "midog25": ("Table 4", {"NMF": 10191, "AMF": 1748}),
    # Printed as classes 0-4, which are no class numbers but ranks of frequency.
    "pannuke": (
        "Table 5",
        {
            "Neoplastic": 39222,
            "Connective": 26108,
            "Inflammatory": 17258,
            "Epithelial": 13457,
            "Dead": 1582,
        },
    ),
    "midog25-128px": ("Table 8", {"NMF": 7955, "AMF": 1160}),
}


def difference(name: str, counts: dict[str, int]) -> int | None:
    """Return the sum of absolute differences to the paper's counts; None if it has none."""
    if name not in TABLES:
        return None
    return sum(abs(counts.get(label, 0) - n) for label, n in TABLES[name][1].items())


def compare(name: str, counts: dict[str, int]) -> list[str]:
    """Return lines of our count, the paper's and the difference per class; [] if it has none."""
    if name not in TABLES:
        return []
    table, paper = TABLES[name]
    rows = [(label, counts.get(label, 0), n) for label, n in paper.items()]
    rows.append(("all", sum(ours for _, ours, _ in rows), sum(n for _, _, n in rows)))
    width = max(len(label) for label, _, _ in rows)
    head = f"  {'':{width}}  {'ours':>8}  {'paper':>8}  difference   (paper, {table})"
    return [head] + [
        f"  {label:{width}}  {ours:8,}  {n:8,}  {ours - n:+10,}" for label, ours, n in rows
    ]
