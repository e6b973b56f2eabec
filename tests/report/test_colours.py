"""Colours of classes: apart from each other, in palettes and legends."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from semidg.data.images import read_mask
from semidg.data.masks import Coding
from semidg.report.colours import CLASS_COLOURS, TRUTH_COLOUR, class_colour, css, legend_png, palette
from semidg.report.figures import overlay
from semidg.report.png import save_png


def test_twenty_classes_have_colours_apart_from_each_other_and_from_the_truth() -> None:
    colours = [class_colour(number) for number in range(1, 21)]
    assert tuple(colours[:5]) == CLASS_COLOURS
    for a, b in combinations([*colours, (0, 0, 0)], 2):
        assert np.abs(np.subtract(a, b)).max() > 25, (a, b)
    assert all(np.abs(np.subtract(colour, TRUTH_COLOUR)).max() > 25 for colour in colours)
    assert css((230, 159, 0)) == "#e69f00"


def test_a_palette_mask_shows_colours_and_is_read_back_as_numbers(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [6, 5, 4]], np.uint8)
    save_png(labels, tmp_path / "m.png", palette(7))
    np.testing.assert_array_equal(read_mask([tmp_path / "m.png"], Coding(7)), labels)
    shown = np.asarray(Image.open(tmp_path / "m.png").convert("RGB"))
    assert tuple(shown[0, 0]) == (0, 0, 0)
    for number in (1, 2, 4, 5, 6):
        assert tuple(shown[labels == number][0]) == class_colour(number)


def test_a_legend_names_every_class_but_the_background_in_its_colour() -> None:
    stream = legend_png(["background", "left cavity", "myocardium $x_1$", "right < cavity"])
    picture = np.asarray(Image.open(io.BytesIO(stream)).convert("RGB")).reshape(-1, 3)
    for number in (1, 2, 3):
        assert (picture == class_colour(number)).all(1).sum() > 50
    assert stream == legend_png(["background", "left cavity", "myocardium $x_1$", "right < cavity"])


def test_overlay_has_the_colour_of_each_class() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[5:25, 5:25], labels[30:55, 30:55] = 2, 7
    drawn = overlay(np.zeros((60, 60), np.uint8), labels)
    for number in (2, 7):
        assert (drawn == class_colour(number)).all(-1)[labels == number].any()
