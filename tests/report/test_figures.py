"""Overlays to the pixel; figures by what they draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import binary_erosion

from semidg.report import figures
from semidg.report.figures import (
    CLASS_COLOURS,
    TRUTH_COLOUR,
    comparison_figure,
    confidence_image,
    dice_chart,
    overlay,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The matplotlib figures that were saved, to look into."""
    seen: list[Figure] = []
    save = figures._save_figure

    def spy(figure: Figure, path: Path) -> None:
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save_figure", spy)
    return seen


def square(side: int = 20, top: int = 5, size: int = 8) -> np.ndarray:
    result = np.zeros((side, side), np.uint8)
    result[top : top + size, top : top + size] = 1
    return result


def equals(picture: np.ndarray, colour: Any) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def test_overlay_fills_and_outlines_the_prediction() -> None:
    image = np.full((20, 20), 100, np.uint8)
    mask = square()
    result = overlay(image, mask)
    assert result.dtype == np.uint8
    assert result.shape == (20, 20, 3)
    np.testing.assert_array_equal(result[mask == 0], 100)  # nothing outside changes
    ring = mask.copy()
    ring[6:12, 6:12] = 0
    np.testing.assert_array_equal(equals(result, CLASS_COLOURS[0]), ring.astype(bool))
    inner = result[6:12, 6:12].reshape(-1, 3)
    np.testing.assert_array_equal(inner, np.tile(np.round(70 + 0.3 * np.array(CLASS_COLOURS[0])), (36, 1)))
    np.testing.assert_array_equal(image, 100)  # the input is not written to


def test_truth_line_lies_outside_so_that_both_are_seen_where_they_agree() -> None:
    mask = square()
    result = overlay(np.zeros((20, 20), np.uint8), mask, mask)
    truth = equals(result, TRUTH_COLOUR)
    assert truth.sum() == 4 * 8
    assert not (truth & (mask == 1)).any()
    assert equals(result, CLASS_COLOURS[0]).sum() == 4 * 7


def test_ignored_truth_and_frame_give_no_line() -> None:
    image = np.zeros((20, 20), np.uint8)
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 255
    assert not overlay(image, np.zeros_like(truth), truth).any()
    everything = np.ones((20, 20), np.uint8)
    result = overlay(image, everything, everything)
    assert not equals(result, TRUTH_COLOUR).any()
    assert not equals(result, CLASS_COLOURS[0]).any()
    assert result.any(axis=-1).all()  # but the fill is there


@pytest.mark.parametrize(("side", "pixels"), [(40, 1), (300, 1), (500, 2), (1000, 4)])
def test_lines_grow_with_the_image(side: int, pixels: int) -> None:
    mask = square(side, side // 4, side // 2)
    row = equals(overlay(np.zeros((side, side), np.uint8), mask), CLASS_COLOURS[0])[side // 2]
    assert row.sum() == 2 * pixels


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_overlay_takes_grey_and_colour_with_and_without_opacity(channels: int | None) -> None:
    shape = (20, 20) if channels is None else (20, 20, channels)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    result = overlay(image, np.zeros((20, 20), np.uint8))
    expected = image.reshape(20, 20, -1)
    expected = expected[..., :3] if channels in {3, 4} else np.repeat(expected[..., :1], 3, axis=2)
    np.testing.assert_array_equal(result, expected)


def test_classes_have_their_own_colours() -> None:
    mask = square()
    mask[15:19, 15:19] = 2
    result = overlay(np.zeros((20, 20, 3), np.uint8), mask)
    assert equals(result, CLASS_COLOURS[0])[5, 5]
    assert equals(result, CLASS_COLOURS[1])[15, 15]
    assert TRUTH_COLOUR not in CLASS_COLOURS


def test_overlay_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="mask is"):
        overlay(np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))
    with pytest.raises(ValueError, match="truth is"):
        overlay(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        overlay(np.zeros((4, 5)), np.zeros((4, 5), np.uint8))  # type: ignore[arg-type]


def test_confidence_image_runs_from_dark_to_light() -> None:
    ramp = np.linspace(0, 1, 50, dtype=np.float32)[None]
    result = confidence_image(ramp)
    assert result.shape == (1, 50, 3)
    assert result.dtype == np.uint8
    lightness = result[0].astype(float) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    np.testing.assert_array_equal(confidence_image(np.array([[-1.0, 2.0]]))[0], result[0, [0, -1]])
    np.testing.assert_array_equal(confidence_image(np.array([[np.nan, 0.0]]))[0], result[0, [0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confidence_image_is_matplotlibs_cividis(dtype: type) -> None:
    values = np.random.default_rng(0).random((60, 70)).astype(dtype)
    values[0] = np.arange(70) / 256  # on the borders of the steps
    values[1, :3] = np.nextafter(dtype(1), dtype(0)), 1, np.nextafter(dtype(1 / 256), dtype(0))
    expected = mpl.colormaps["cividis"](values, bytes=True)[..., :3]
    np.testing.assert_array_equal(confidence_image(values), expected)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_overlay_is_that_of_the_whole_picture_drawn_in_floats(seed: int, thickness: int, coloured: bool) -> None:
    """The lines and fills are computed in the part that holds the mask; here in the whole picture."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (13, 17, 3 if coloured else 1), dtype=np.uint8)
    mask = np.zeros((13, 17), np.uint8)
    for number in range(1, 4):  # some of them at the frame, some empty
        (top, left), (height, width) = generator.integers(0, (13, 17)), generator.integers(0, 9, 2)
        mask[top : top + height, left : left + width] = number
    expected = np.broadcast_to(image, (13, 17, 3)).astype(np.float32)
    for number in range(1, 4):
        inside = mask == number
        line = inside & ~binary_erosion(inside, iterations=thickness, border_value=1)
        colour = np.array(figures.class_colour(number), np.float32)
        expected[inside] = 0.7 * expected[inside] + 0.3 * colour
        expected[line] = colour
    before = image.copy()
    np.testing.assert_array_equal(overlay(image, mask, thickness=thickness), expected.round().astype(np.uint8))
    np.testing.assert_array_equal(image, before)


def rows() -> list[dict[str, Any]]:
    image, truth = np.full((20, 30), 90, np.uint8), np.zeros((20, 30), np.uint8)
    truth[5:15, 5:15] = 1
    half = truth.copy()
    half[10:] = 0
    first = {"image": image, "truth": truth, "predictions": {"one": truth, "two": half}, "title": "case 7"}
    return [first, {**first, "image": np.dstack([image] * 3), "dice": {"two": 0.1234}, "title": ""}]


def test_comparison_has_input_truth_and_each_method_with_its_dice(tmp_path: Path, drawn: list[Figure]) -> None:
    comparison_figure(rows(), ["two", "one"], tmp_path / "c.png")
    (figure,) = drawn
    axes = np.array(figure.axes).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ["Input", "Ground truth", "two", "one"]
    captions = [[axis.get_xlabel().strip() for axis in line] for line in axes]
    assert captions == [["", "", "Dice 0.67", "Dice 1.00"], ["", "", "Dice 0.12", "Dice 1.00"]]
    assert axes[0, 0].get_ylabel() == "case 7"

    shown = [np.asarray(axis.images[0].get_array()) for axis in axes[0]]
    np.testing.assert_array_equal(shown[0], 90)  # the input is shown bare
    has_line = [equals(picture, TRUTH_COLOUR).any() for picture in shown]
    has_fill = [equals(picture, CLASS_COLOURS[0]).any() for picture in shown]
    assert has_line == [False, True, True, True]
    assert has_fill == [False, False, True, True]
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 1000


def test_comparison_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        comparison_figure([], ["one"], tmp_path / "c.png")
    assert not list(tmp_path.iterdir())


def test_comparison_of_several_classes_with_ignored_pixels(tmp_path: Path, drawn: list[Figure]) -> None:
    (row, _) = rows()
    row["truth"] = row["truth"].copy()
    row["truth"][15:, 20:], row["truth"][0] = 2, 255
    comparison_figure([row], ["one"], tmp_path / "c.png")
    assert drawn[0].axes[3 - 1].get_xlabel() == "Dice 0.50"  # class 1 perfect, class 2 missed


def test_chart_shows_every_case_of_every_method_by_domain(tmp_path: Path, drawn: list[Figure]) -> None:
    first = pd.DataFrame({"domain": ["A"] * 4 + ["B"] * 3, "dice": np.linspace(0.1, 0.9, 7)})
    second = pd.DataFrame({"domain": ["B"] * 2, "dice": [0.5, 0.6]})  # no case of A
    dice_chart({"supervised": first, "dual_level": second}, tmp_path / "d.png")
    axis = drawn[0].axes[0]
    points = [collection.get_offsets() for collection in axis.collections]
    assert [len(p) for p in points] == [4, 3, 2]
    assert sorted(v for p in points for v in np.asarray(p)[:, 1]) == pytest.approx(
        sorted([*first["dice"], *second["dice"]])
    )
    # the points of a method stay on its side of its domain's place
    assert (np.asarray(points[1])[:, 0] < 1).all()
    assert (np.asarray(points[2])[:, 0] > 1).all()
    assert [label.get_text() for label in axis.get_xticklabels()] == ["A", "B"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["supervised", "dual_level"]
    assert (tmp_path / "d.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="at least one case"):
        dice_chart({}, tmp_path / "e.png")
