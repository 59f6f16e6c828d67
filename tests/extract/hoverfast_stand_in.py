"""Stand in for HoverFast: `python hoverfast_stand_in.py BEHAVIOUR infer_wsi -m M -o OUT … SLIDE`.

Its behaviours are those seen of HoverFast: what it prints, logs, writes and leaves running. The
nuclei are CENTRES, of RADIUS, counted from the slide's bounds.
"""

import datetime
import gzip
import math
import os
import signal
import sys
import time
from pathlib import Path

CENTRES = [(x, y) for y in range(80, 440, 60) for x in range(80, 600, 60)]
RADIUS = 12


def feature(x: int, y: int, radius: int = RADIUS) -> str:
    """Return a nucleus as HoverFast writes it."""
    turn = [2 * math.pi * i / 14 for i in range(14)]
    ring = [
        (float(round(x + radius * math.cos(t))), float(round(y + radius * math.sin(t))))
        for t in turn
    ]
    points = ",".join(f"[{a},{b}]" for a, b in [*ring, ring[0]])
    return (
        f'{{"geometry":{{"type":"Polygon","coordinates":[[{points}]],"centroid":[{x},{y}]}},'
        '"properties":{"object_type":"cell","classification":{"name":"Nuclei","colorRGB":-65536},'
        '"isLocked":false},"type":"Feature"}'
    )


def text(centres: list[tuple[int, int]] = CENTRES) -> str:
    """Return a whole output."""
    return "[" + ",".join("\n" + feature(x, y) for x, y in centres) + "\n]"


def log(out: Path, line: str, level: str = "ERROR") -> None:
    """Log as HoverFast does: its name is its path, and a traceback may follow."""
    now = datetime.datetime.now()
    path = out / f"HoverFast_log_{now:%Y-%m-%d_%Hh%M}.log"
    with open(path, "a") as file:
        file.write(f"{now:%Y-%m-%d %H:%M:%S},000 - {path} - {level} - {line}\n")
        file.write('Traceback (most recent call last):\n  File "utils_wsi.py"\nValueError: x\n')
    print(f"{path} - {level} - {line}", file=sys.stderr)


def spin(made: Path) -> None:
    """Leave a writer that loops for ever over an empty file."""
    if os.fork() == 0:
        with gzip.open(made, "wt"):
            while True:
                try:
                    raise BrokenPipeError
                except BrokenPipeError:
                    continue


def main(behaviour: str, words: list[str]) -> None:
    """Behave as asked."""
    assert words[0] == "infer_wsi", words
    out, slide = Path(words[words.index("-o") + 1]), Path(words[-1])
    assert Path(words[words.index("-m") + 1]).suffix == ".pth"
    out.mkdir(exist_ok=True)
    name = slide.name.rpartition(".")[0]
    made = out / f"{name}.json.gz"
    print(f"- Working on {name}")
    tried = out.parent / f"{behaviour}.tried"
    first = not tried.exists()
    tried.touch()
    if behaviour == "silent":  # truncated slide, mpp .5 at -l 40
        log(out, f"File {name} failed: Unsupported or missing image file")
        return
    if behaviour == "usage":
        sys.exit("HoverFast infer_wsi: error: argument -g/--batch_gpu: invalid int value: 'x'")
    if behaviour in ("spin", "spin-quietly", "escape"):  # a corrupt tile after the writer began
        if behaviour == "escape" and os.fork() == 0:
            os.setsid()
            time.sleep(600)
        spin(made)
        if behaviour != "spin-quietly":
            log(out, f"File {name} failed: Corrupt JPEG data: 12 extraneous bytes")
        os.wait()
    if behaviour == "stall":  # a dead file system
        time.sleep(600)
    if behaviour == "killed":
        with open(made, "wb") as file:
            file.write(gzip.compress(text().encode())[:500])
        spin(out / "another")
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "slow":  # but alive: CPU and no output, then output and no CPU
        end = time.process_time() + 1.5
        while time.process_time() < end:
            pass
        for step in range(8):
            time.sleep(0.2)
            print("outer", step, flush=True)
    if behaviour == "timed":
        start = time.time()
        time.sleep(1.0)
        with open(out.parent / "times", "a") as file:
            file.write(f"{start} {time.time()}\n")
    if behaviour == "assuming":
        print(
            "WARNING. The MPP value was not found in openslide properties;", "using default 0.245."
        )
    whole = gzip.compress((text([]) if behaviour == "none" else text()).encode())
    if behaviour == "truncated" or (behaviour == "second" and first):
        whole = whole[: len(whole) // 2]
    if behaviour == "unclosed":
        whole = gzip.compress(text()[:-2].encode())
    if behaviour == "masked":
        mask = Path(words[words.index("-b") + 1]) / f"{name}.png"
        assert mask.is_file(), mask
    made.write_bytes(whole)
    print(f"running time: 1.0, #patches 1 and #objects {len(CENTRES)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
