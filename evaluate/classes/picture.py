"""Slides and cells in their classes' colours."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from evaluate.classes.calls import NONE, Calls
from evaluate.classes.tissue import View
from evaluate.maps.colouring import rgb
from evaluate.report.class_sheet import COLUMNS, ROWS, font, headed
from evaluate.slides.annotations import xy
from evaluate.slides.extraction import Nuclei
from shards.schema import VIEW_PX

LINE_PX = 28  # of a legend
LONGEST_PX = 1600  # of a slide's picture
FADED = 0.45  # share of white over the slide, below the nuclei
NUCLEUS_UM = 3.5  # radius at which a nucleus is drawn, within
DOT_PX = (1.3, 7.0)
GREY = "#9aa3ab"  # of nuclei without a class


def overview(nuclei: Nuclei, calls: Calls, view: View) -> Image.Image:
    """Draw a slide's nuclei in the colours of their classes over its faded picture."""
    faded = view.image.astype(np.float32) * (1 - FADED) + 255 * FADED
    image = np.ascontiguousarray(faded.astype(np.uint8))
    radius = np.clip(NUCLEUS_UM / nuclei.record["mpp"] / view.down, *DOT_PX)
    places, labels = (xy(nuclei) + 0.5) / view.down, calls.labels
    shift = 4  # bits of a pixel's fraction
    colours = calls.classifier.colours | {"": GREY}
    numbers = calls.counts()
    order = sorted(colours, key=lambda name: -numbers[name or NONE])  # rare ones on top
    for name in ("", *(name for name in order if name)):
        colour = rgb(colours[name])
        for x, y in np.round(places[labels == name] * 2**shift).astype(int).tolist():
            cv2.circle(image, (x, y), round(radius * 2**shift), colour, -1, cv2.LINE_AA, shift)
    return Image.fromarray(image)


def with_legend(picture: Image.Image, calls: Calls) -> Image.Image:
    """Return a picture above the colour, name, number and share of each class that was found."""
    numbers = {name: number for name, number in calls.counts().items() if number}
    total, text = sum(numbers.values()), font(LINE_PX // 2)
    lines = [f"{name}  ·  {n:,}  ·  {n / total:.0%}" for name, n in numbers.items()]
    widest = LINE_PX + 4 + max((round(text.getlength(line)) for line in lines), default=0)
    size = (max(picture.width, widest), picture.height + LINE_PX * len(lines))
    whole = Image.new("RGB", size, "white")
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for place, (name, line) in enumerate(zip(numbers, lines, strict=True)):
        x, y, dot = LINE_PX // 2, picture.height + LINE_PX * place + LINE_PX // 2, DOT_PX[1]
        colour = calls.classifier.colours.get(name, GREY)
        draw.ellipse((x - dot, y - dot, x + dot, y + dot), colour)
        draw.text((LINE_PX, y), line, "#333", text, anchor="lm")
    return whole


def grid(nuclei: Nuclei, calls: Calls, seed: int = 0) -> Image.Image:
    """Draw some cells of each class, chosen at random, under its name, number and share."""
    labels, rng, blocks = calls.labels, np.random.default_rng(seed), []
    for name, number in calls.counts().items():
        rows = np.flatnonzero(labels == ("" if name == NONE else name))
        if not number:
            continue
        chosen = np.sort(rng.choice(rows, min(number, COLUMNS * ROWS), replace=False))
        blocks.append((f"{name}  ·  {number:,}  ·  {number / len(labels):.0%}",
                       nuclei.crops(chosen, VIEW_PX)))  # fmt: skip
    return headed(blocks)
