"""Charts are SVG that parses, follows the page, says what it shows, and is the same every time."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from matplotlib.figure import Figure

from report.report_support import EVIL, make_cases, make_confidence
from semidg.report import charts
from semidg.report.svg import COLOURS, GRID, INK, PAPER, chart, colour, dashes, marker, swatch, to_svg

CASES = make_cases()
FACTS = make_confidence(CASES)


def every_chart(prefix: str = "p") -> dict[str, Markup]:
    x = np.arange(5.0)
    nan = float("nan")
    rows = [charts.Interval(1, EVIL, 1.0, -1.0, 3.0, nan, nan), charts.Interval(2, "b", 2.0, 1.0, 3.0, 0.0, 4.0)]
    bins = FACTS["pixels"]["reliability"]
    coverage = (0, FACTS["risk_coverage"], CASES["dice"].to_numpy())
    return {
        "course": charts.course([charts.Line(0, x, x), charts.Line(1, x, x * np.nan)], "l", prefix),
        "boxes": charts.boxes({EVIL: {0: x, 1: x}, "one": {0: x[:1]}}, "l", prefix, "Dice"),
        "over_area": charts.over_area({0: CASES}, "l", prefix),
        "agreement": charts.area_agreement({0: CASES, 1: CASES}, "l", prefix),
        "forest": charts.forest(rows, "l", prefix, "points"),
        "reliability": charts.reliability([(0, False, bins), (0, True, bins)], "l", prefix),
        "expected": charts.expected_real({0: CASES}, "l", prefix),
        "coverage": charts.risk_coverage([coverage], "l", prefix),
        "coverage of two": charts.risk_coverage([coverage, coverage], "l", prefix),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, Markup]:
    return every_chart()


def test_every_chart_parses_and_follows_the_page(drawn: dict[str, Markup]) -> None:
    for name, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img", name
        assert root.attrib["aria-label"] == "l", name
        assert not re.search(r"https?:|font-family|<style|<script|xlink", svg), name
        assert not [c for c in (INK, GRID, PAPER, *COLOURS) if c in svg.lower()], name
        assert "currentColor" in svg, name
        texts = "".join(root.itertext())
        assert len(texts.split()) > 3, name


def test_ids_are_of_the_figure_and_every_reference_is_kept(drawn: dict[str, Markup]) -> None:
    for name, svg in drawn.items():
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids)), name
        assert all(i.startswith("p-") for i in ids), name
        references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert {a or b for a, b in references} <= set(ids), name


def test_the_same_numbers_give_the_same_bytes(drawn: dict[str, Markup]) -> None:
    assert every_chart() == drawn
    assert not set(re.findall(r'id="([^"]+)"', every_chart("q")["course"])) & set(
        re.findall(r'id="([^"]+)"', drawn["course"])
    )


def test_names_and_labels_are_escaped() -> None:
    svg = charts.boxes({EVIL: {0: np.ones(3)}}, EVIL, "p", "x")
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == EVIL
    assert EVIL[:15] in "".join(root.itertext())
    assert "<script" not in svg


@given(true=st.floats(0.001, 1), predicted=st.floats(0, 1))
def test_the_predicted_area_comes_back_from_its_bias(true: float, predicted: float) -> None:
    table = pd.DataFrame({"area": [true], "area_bias": [(predicted - true) / max(predicted, true)]})
    assert charts.predicted_area(table)[1][0] == pytest.approx(100 * predicted, rel=1e-6, abs=1e-6)


def test_images_without_foreground_have_no_place_on_a_logarithmic_axis() -> None:
    true, predicted = charts.predicted_area(CASES)
    assert len(true) == len(predicted) == len(CASES) - 1
    only_empty = CASES[CASES["area"] == 0]
    for draw in (charts.over_area, charts.area_agreement):
        ElementTree.fromstring(draw({0: only_empty}, "l", "p"))


def test_a_long_run_stays_small_and_keeps_its_mean() -> None:
    x = np.arange(100_000.0)
    svg = charts.course([charts.Line(0, x, np.sin(x))], "l", "p")
    assert len(svg) < 60_000
    few_x, few_y = charts._thinned(x, x)
    assert len(few_x) == 250
    assert few_y.mean() == pytest.approx(x.mean(), rel=1e-3)
    many = charts.boxes({"a": {0: np.linspace(0, 100, 50_000)}}, "l", "p", "Dice")
    assert len(many) < 120_000


def test_the_best_possible_order_keeps_the_best_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines drawn for three images, of which the model is surest of the worst."""
    drawn: dict[str, tuple[list[float], list[float]]] = {}

    def keep(figure: Figure, prefix: str, label: str) -> Markup:
        for line in figure.axes[0].get_lines():
            drawn[str(line.get_label())] = np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()
        return to_svg(figure, prefix, label)

    monkeypatch.setattr(charts, "to_svg", keep)
    curve = {"coverage": [1 / 3, 2 / 3, 1.0], "dice": [0.2, 0.35, 0.5]}
    charts.risk_coverage([(0, curve, np.array([0.5, 0.2, 0.8]))], "l", "p")
    kept = pytest.approx([100 / 3, 200 / 3, 100])
    assert drawn["by the model's certainty"] == (kept, pytest.approx([20, 35, 50]))
    assert drawn["best possible order"] == (kept, pytest.approx([80, 65, 50]))
    assert drawn["at random"][1] == pytest.approx([50, 50])


def test_methods_differ_by_more_than_colour() -> None:
    for style in (marker, dashes, colour):
        assert len({str(style(place)) for place in range(6)}) == 6
    assert len({swatch(place) for place in range(6)}) == 6
    assert marker(7) == marker(1)


def test_a_users_matplotlib_settings_change_nothing(drawn: dict[str, Markup]) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "path", "font.size": 30, "axes.grid": False}):
        assert every_chart()["forest"] == drawn["forest"]
        assert mpl.rcParams["font.size"] == 30
    with chart() as (figure, axes):
        axes.set_title("a $ b $ 漢")
        assert "a $ b $ 漢" in to_svg(figure, "p", "l")


def test_a_column_of_a_foreign_table_becomes_no_code_and_no_pattern() -> None:
    for name in ('a"><img src=x onerror=alert(1)>', "a\\9", "a b", "a_20_b"):
        line = charts.Line(0, np.arange(3.0), np.arange(3.0))
        svg = charts.course([line], "title", f"course-{name}", percent=False)
        ElementTree.fromstring(svg)
        assert "<img" not in svg
    both = [charts.course([line], "t", f"course-{name}", percent=False) for name in ("a b", "a-b")]
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in both]
    assert not ids[0] & ids[1]
