"""How many callipers and captions, drawn into images, the audit finds, and how often it finds some where none is.

    python -m benchmarks.markers [--root BUSI] [--images 25] [--seed 2000] [--out markers.json]

Images: phantoms, ``--images`` of each scanner, 256 x 256, drawn from the seed; with ``--root`` also as many images of
that data set in which the audit finds neither crosses nor text, drawn with the seed. Into each, one marker at a time:

- a calliper: a ``+`` or ``x`` with arms of 5, 7 or 10 pixels, lines 1 or 3 pixels wide, centred on the mask's border;
- a caption of CAPTIONS in the font that Pillow brings, at 12, 16, 24 or 32 points, sharp (as scanners write) or
  antialiased, anywhere in the image.

Its grey is the mean grey of the rectangle that it covers plus 60, 100, 140 or 180, at most 255. It is found if a box of
the audit meets that rectangle. False alarms are images with a find before anything is drawn; of another data set they
are not told, since its images are chosen to have none. Intervals are Wilson's, 95 %. The thresholds of the detectors
were chosen on phantoms of seed 5 and, for text, on the lesion images of BUSI; no other seed was used for it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion
from scipy.stats import binomtest

from semidg.data.index import build_index
from semidg.data.phantom import write_phantom
from semidg.data.reading import record_image, record_mask
from semidg.experiment.audit.markers import find_markers
from semidg.experiment.audit.texts import find_text

Grey = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, width, height

CONTRASTS = (60, 100, 140, 180)
ARMS, WIDTHS = (5, 7, 10), (1, 3)
POINTS, EDGES = (12, 16, 24, 32), ("sharp", "antialiased")
CAPTIONS = ("LT BREAST", "rt axilla", "RT 10:00", "1 L 2.3 cm", "LT9")


class Picture(NamedTuple):
    """An image and its mask, (H, W) each."""

    grey: Grey
    mask: npt.NDArray[np.bool_]


class Rate(NamedTuple):
    """Of ``n`` trials ``hits``. low, high: Wilson's interval of their share, 95 %."""

    hits: int
    n: int
    low: float
    high: float


def rate(hits: int, n: int) -> Rate:
    """The share with its interval."""
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return Rate(hits, n, float(low), float(high))


def find_crosses(picture: Picture) -> list[Box]:
    """Boxes of the audit's callipers."""
    colours = np.repeat(picture.grey[..., None], 3, axis=2)
    return list(find_markers(colours, picture.grey, picture.mask).crosses)


def find_captions(picture: Picture) -> list[Box]:
    """Boxes of the audit's lines of text."""
    return [line.box for line in find_text(picture.grey)]


def cross(picture: Picture, arm: int, width: int, contrast: int, rng: np.random.Generator) -> tuple[Grey, Box]:
    """The image with a calliper on the border of its mask, and the rectangle that it covers."""
    height, across = picture.grey.shape
    y, x = rng.choice(np.argwhere(picture.mask & ~binary_erosion(picture.mask))).tolist()
    left, top = max(0, x - arm), max(0, y - arm)
    box = (left, top, min(across, x + arm + 1) - left, min(height, y + arm + 1) - top)
    image = Image.fromarray(picture.grey)
    draw, ink = ImageDraw.Draw(image), _ink(picture.grey, box, contrast)
    slanted = bool(rng.integers(2))
    for down, right in ((1, 1), (1, -1)) if slanted else ((1, 0), (0, 1)):
        ends = (x - right * arm, y - down * arm, x + right * arm, y + down * arm)
        draw.line(ends, fill=ink, width=width)
    return np.array(image), box


def caption(
    picture: Picture, points: int, edge: str, contrast: int, rng: np.random.Generator
) -> tuple[Grey, Box] | None:
    """The image with a caption, and the rectangle that it covers; None if it has no room."""
    image = Image.fromarray(picture.grey)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(points)
    draw.fontmode = "1" if edge == "sharp" else "L"
    text = str(rng.choice(CAPTIONS))
    x0, y0, x1, y1 = (round(number) for number in draw.textbbox((0, 0), text, font))
    width, height = x1 - x0, y1 - y0
    if width >= image.width or height >= image.height:
        return None
    left, top = int(rng.integers(image.width - width)), int(rng.integers(image.height - height))
    box = (left, top, width, height)
    draw.text((left - x0, top - y0), text, fill=_ink(picture.grey, box, contrast), font=font)
    return np.array(image), box


def _ink(grey: Grey, box: Box, contrast: int) -> int:
    left, top, width, height = box
    return min(255, round(float(grey[top : top + height, left : left + width].mean())) + contrast)


def meet(one: Box, other: Box) -> bool:
    """Whether two rectangles share a pixel."""
    return all(one[k] < other[k] + other[k + 2] and other[k] < one[k] + one[k + 2] for k in (0, 1))


class Kind(NamedTuple):
    """A kind of marker. sizes, looks: what it is drawn with beside a contrast, and what these are called."""

    find: Callable[[Picture], list[Box]]
    draw: Callable[..., tuple[Grey, Box] | None]
    sizes: tuple[int, ...]
    looks: tuple[Any, ...]
    size: str
    look: str


KINDS = {
    "calliper": Kind(find_crosses, cross, ARMS, WIDTHS, "arm, pixels", "width {} px"),
    "text": Kind(find_captions, caption, POINTS, EDGES, "points", "{}"),
}


def measure(pictures: Sequence[Picture], seed: int) -> list[dict[str, Any]]:
    """A row for each kind, size, look and contrast, with its Rate of markers found."""
    rows = []
    for name, kind in KINDS.items():
        rng = np.random.default_rng([seed, len(name)])
        for size, look, contrast in product(kind.sizes, kind.looks, CONTRASTS):
            drawn = [(p, one) for p in pictures if (one := kind.draw(p, size, look, contrast, rng)) is not None]
            hits = sum(any(meet(box, place) for box in kind.find(Picture(grey, p.mask))) for p, (grey, place) in drawn)
            found = rate(hits, len(drawn))._asdict()
            rows.append({"kind": name, "size": size, "look": look, "contrast": contrast, **found})
    return rows


def false_alarms(pictures: Sequence[Picture]) -> dict[str, dict[str, Any]]:
    """For each kind the Rate of images with a find though nothing is drawn in them."""
    found = {name: rate(sum(bool(kind.find(p)) for p in pictures), len(pictures)) for name, kind in KINDS.items()}
    return {name: each._asdict() for name, each in found.items()}


def phantoms(each: int, seed: int) -> list[Picture]:
    """``each`` images of every scanner of the phantom, with a mask that is not empty."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantom(Path(folder) / "phantom", images_per_scanner=each, size=256, seed=seed)
        return list(_pictures(Path(folder) / "phantom", None))


def unmarked(root: Path, count: int, seed: int) -> list[Picture]:
    """Up to ``count`` images of a data set in which the audit finds neither calliper nor text, drawn with the seed."""
    found = []
    for picture in _pictures(root, seed):
        if not any(kind.find(picture) for kind in KINDS.values()):
            found.append(picture)
            if len(found) == count:
                break
    return found


def _pictures(root: Path, seed: int | None) -> Iterator[Picture]:
    index = build_index(root)
    records = [record for record in index.records if record.labelled]
    order = range(len(records)) if seed is None else np.random.default_rng(seed).permutation(len(records)).tolist()
    for number in order:
        mask = record_mask(index.root, records[number]) > 0
        if mask.any():
            yield Picture(record_image(index.root, records[number], 1)[..., 0], mask)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a table a kind, the share of markers found in % with its interval."""
    parts = []
    for name, kind in KINDS.items():
        heads = [kind.look.format(look) + f", +{contrast}" for look, contrast in product(kind.looks, CONTRASTS)]
        parts += ["", f"| {name}: {kind.size} | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
        for size in kind.sizes:
            own = [row for row in rows if row["kind"] == name and row["size"] == size]
            parts.append(f"| {size} | {' | '.join(percent(row) for row in own)} |")
    return "\n".join(parts)


def percent(row: dict[str, Any]) -> str:
    """``84 (76-90)``."""
    return f"{100 * row['hits'] / row['n']:.0f} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"


def main() -> None:
    """Measure, print Markdown and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=None, help="a data set, such as BUSI")
    parser.add_argument(
        "--images", type=int, default=25, help="of each of four scanners, and four times as many of root"
    )
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("markers.json"))
    options = parser.parse_args()
    own = phantoms(options.images, options.seed)
    result: dict[str, Any] = {"seed": options.seed, "phantom": {"images": len(own), "false_alarms": false_alarms(own)}}
    sets = {"phantom": own}
    if options.root is not None:
        sets[options.root.name] = unmarked(options.root, 4 * options.images, options.seed)
        result[options.root.name] = {"images": len(sets[options.root.name])}
    for name, pictures in sets.items():
        result[name]["found"] = measure(pictures, options.seed)
        print(f"\n{name}, {len(pictures)} images, seed {options.seed}: markers found, % (95 %)")
        print(tables(result[name]["found"]))
    print("\nphantom: images with a false alarm, of 100 (95 %)")
    for name, row in result["phantom"]["false_alarms"].items():
        print(f"  {name}: {percent(row)}")
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
