"""Text: the rule against a slow reference, captions planted in phantom images, and images without any."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import grey_opening, label

from audit_support import audit, save, square, texture
from semidg.data.index import build_index
from semidg.data.phantom import write_phantom
from semidg.data.reading import record_image
from semidg.experiment.audit import texts
from semidg.experiment.audit.texts import Line, find_text, is_near

Grey = NDArray[np.uint8]


def written(grey: Grey, text: str, left: int, top: int, size: int, ink: int = 230) -> Grey:
    """The image with text in the font that Pillow brings, without antialiasing, as scanners write."""
    image = Image.fromarray(grey)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.text((left, top), text, fill=ink, font=ImageFont.load_default(size))
    return np.array(image)


def slow_opening(grey: Grey, size: int) -> Grey:
    """The greatest of the least values of squares; beyond the frame nothing is least, and nothing is greatest."""
    for beyond, best in ((255, np.min), (0, np.max)):
        padded = np.pad(grey, size // 2, constant_values=beyond)
        moved = [padded[a : a + grey.shape[0], b : b + grey.shape[1]] for a, b in product(range(size), repeat=2)]
        grey = best(moved, axis=0)
    return grey


def slow_lines(grey: Grey) -> list[Line]:
    """The rule as it is written, letter by letter."""
    low = slow_opening(grey, texts.WINDOW)
    ink = (grey >= texts.LEAST_GREY) & (grey.astype(int) - low >= texts.LEAST_CONTRAST)
    labelled, count = label(ink, np.ones((3, 3)))
    letters = []
    for number in range(1, count + 1):
        y, x = np.nonzero(labelled == number)
        values = grey[y, x].astype(int)
        height, width = int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
        uniform = np.mean(values >= values.max() - texts.SPREAD) >= texts.ONE_TONE
        if texts.SHORTEST <= height <= texts.TALLEST and 2 <= width <= texts.WIDEST * height and uniform:
            letters.append((int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1, int(values.max())))

    def joined(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        tall, small = max(a[3] - a[1], b[3] - b[1]), min(a[3] - a[1], b[3] - b[1])
        level = min(abs(a[1] - b[1]), abs(a[3] - b[3])) <= max(1, texts.SLACK * tall)
        gap = max(a[0], b[0]) - min(a[2], b[2])
        return level and small >= texts.SMALLEST * tall and gap <= tall and abs(a[4] - b[4]) <= texts.SPREAD

    chains: list[list[tuple[int, ...]]] = []
    for letter in letters:
        own = [chain for chain in chains if any(joined(letter, other) for other in chain)]
        chains = [chain for chain in chains if chain not in own] + [[letter, *(one for chain in own for one in chain)]]
    lines = []
    for chain in chains:
        if len(chain) >= texts.LEAST_LETTERS:
            x0, y0 = min(c[0] for c in chain), min(c[1] for c in chain)
            x1, y1 = max(c[2] for c in chain), max(c[3] for c in chain)
            lines.append(Line(len(chain), (x0, y0, x1 - x0, y1 - y0)))
    return sorted(lines, key=lambda line: (line.box[1], line.box[0]))


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_lines_are_those_of_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 130, (70, 90), dtype=np.uint8)
    for _ in range(12):
        y, x, h, w = rng.integers(0, 65), rng.integers(0, 85), rng.integers(4, 16), rng.integers(1, 9)
        ink = int(rng.integers(150, 255))
        grey[y : y + h, x : x + 2] = ink
        grey[y : y + 2, x : x + w] = ink
    assert list(find_text(grey)) == slow_lines(grey)


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 5, 9]))
@settings(max_examples=20, deadline=None)
def test_the_opening_is_that_of_its_definition_at_the_frame_too(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, rng.integers(1, 30, 2), dtype=np.uint8)
    assert (grey_opening(grey, size=(size, size)) == slow_opening(grey, size)).all()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Grey]:
    root = tmp_path_factory.mktemp("phantom") / "p"
    write_phantom(root, images_per_scanner=3, size=256, seed=5)
    index = build_index(root)
    return [record_image(index.root, record, 1)[..., 0] for record in index.records]


def test_speckle_is_no_text(phantoms: list[Grey]) -> None:
    assert [find_text(grey) for grey in phantoms] == [()] * len(phantoms)


@pytest.mark.parametrize("size", [12, 16, 24, 32])
@pytest.mark.parametrize("text", ["LT BREAST", "rt axilla", "1 L 2.3 cm"])
def test_captions_are_found_where_they_stand(phantoms: list[Grey], size: int, text: str) -> None:
    hits = 0
    for grey in phantoms:
        lines = find_text(written(grey, text, 20, 200, size))
        hits += bool(lines)
        for line in lines:
            left, top, width, height = line.box
            assert left >= 19
            assert top >= 199
            assert top + height <= 200 + 1.3 * size
            assert 2 <= line.letters <= len(text.replace(" ", ""))
            assert left + width <= 20 + size * len(text)
    assert hits >= 0.75 * len(phantoms)


def test_letters_are_counted_line_by_line() -> None:
    grey = np.full((120, 200), 40, np.uint8)
    two = written(written(grey, "LTH", 10, 10, 20), "TFHL", 60, 70, 20)
    assert [line.letters for line in find_text(two)] == [3, 4]
    assert find_text(written(grey, "T", 10, 10, 20)) == ()  # a letter by itself
    assert find_text(written(grey, "LTH", 10, 10, 20, ink=texts.LEAST_GREY - 1)) == ()
    bright = np.full((120, 200), 200, np.uint8)
    assert find_text(written(bright, "LTH", 10, 10, 20)) == ()  # no contrast
    assert find_text(np.zeros((1, 1), np.uint8)) == ()


def test_near_is_a_part_of_the_diagonal_beside_the_box() -> None:
    mask = np.zeros((120, 160), bool)
    mask[50:60, 50:60] = True
    reach = round(texts.NEAR * math.hypot(120, 160))
    assert is_near((52, 52, 3, 3), mask)
    assert is_near((60 + reach - 1, 50, 20, 10), mask)
    assert not is_near((60 + reach, 50, 20, 10), mask)
    assert is_near((50, 20, 20, 30 - reach + 1), mask)
    assert not is_near((50, 20, 20, 30 - reach), mask)


def test_the_audit_says_where_text_stands(tmp_path: Path) -> None:
    image = texture(1, 200, 150)
    mask = square(30, 30, 60, 200, 150)
    for name, shown, masks in (
        ("over", written(image, "LT 2", 40, 50, 16), (mask,)),
        ("far", written(texture(2, 200, 150), "LTH", 120, 120, 16), (mask,)),
        ("unlabelled", written(texture(3, 200, 150), "LTH", 40, 50, 16), ()),
        ("none", texture(4, 200, 150), (mask,)),
    ):
        save(tmp_path, f"a/{name}", shown, *masks)
    found = {(i.id, i.kind): i for i in audit(tmp_path).issues if i.kind.startswith("text ")}
    assert set(found) == {
        ("a/over", "text at the lesion"),
        ("a/far", "text in the image"),
        ("a/unlabelled", "text in the image"),
    }
    issue = found["a/far", "text in the image"]
    assert (issue.value, issue.severity) == (3, "note")
    assert issue.box is not None
    assert issue.box[0] >= 120
    assert found["a/over", "text at the lesion"].severity == "warning"
