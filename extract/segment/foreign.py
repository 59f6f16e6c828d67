"""Annotations in the formats of programs that are not read here, recognised by how they begin."""

import re

CURE = (
    "write them as GeoJSON, a file a slide (QuPath: File > Export objects as GeoJSON), or as a "
    "table with the columns slide, x, y and label, px of level 0"
)
TEXTS = (  # of XML and tables
    (rb"<ASAP_Annotations\b", "ASAP's XML"),
    (rb"<Annotations\b[^>]*\bMicronsPerPixel|<Annotation\b[^>]*\bLineColor=", "ImageScope's XML"),
    (rb"<annotations>\s*<(?:version|meta|image)\b", "CVAT's XML"),
    (rb"<annotations>\s*<ndpviewstate\b", "NDP.view's XML"),
    (rb"<annotation\b[^>]*>(?:(?!</annotation>).)*<bndbox>", "Pascal VOC's XML"),
    (rb"<\?xml|<\w+[ >]", "XML of a program that is not known here"),
    (rb"filename,file_size,file_attributes,region_count", "VIA's table"),
)
# A class, and shares of an image's width and height: a box's middle and sides, or corners.
YOLO = re.compile(rb"\d+(?: (?:0(?:\.\d+)?|1(?:\.0+)?|\.\d+|\d(?:\.\d+)?e-\d+)){4,}")
KEYS = (  # of JSON: all of a set tell its program
    ({"images", "annotations"}, "COCO's JSON, which holds many images by their numbers"),
    ({"images", "categories"}, "COCO's JSON, which holds many images by their numbers"),
    ({"annotations", "categories"}, "COCO's JSON, which holds many images by their numbers"),
    ({"shapes", "imagePath"}, "labelme's JSON"),
    ({"shapes", "points", "label"}, "labelme's JSON"),
    ({"_via_img_metadata"}, "VIA's JSON"),
    ({"regions", "shape_attributes"}, "VIA's JSON"),
    ({"completions", "data"}, "Label Studio's JSON"),
    ({"annotations", "data"}, "Label Studio's JSON"),
    ({"image_id", "category_id"}, "COCO's JSON of results, which holds many images by numbers"),
)


def foreign_text(head: bytes) -> str | None:
    """Say whose XML or table a text is, and the cure; None where no known program's."""
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lines = head.split(b"\n")[:20]
    lines = [line.strip().replace(b"\t", b" ") for line in lines[: len(lines) - 1 or 1]]
    if lines and all(YOLO.fullmatch(line) for line in lines if line) and lines[0]:
        return (
            "it is YOLO's text, whose places are shares of an image's width and height; write "
            "them as a table with the columns slide, x, y and label, px of level 0"
        )
    for sign, kind in TEXTS:
        if (sign[:1] != b"<" or head.startswith(b"<")) and re.search(sign, head, re.DOTALL):
            return f"it is {kind}, which is not read; {CURE}"
    return None


def foreign_json(keys: set[str]) -> str | None:
    """Say whose JSON has such keys, and the cure; None where no known program's."""
    kind = next((kind for signs, kind in KEYS if signs <= keys), None)
    return kind and f"it is {kind}; {CURE}"
