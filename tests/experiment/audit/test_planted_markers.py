"""What the benchmark of the detectors draws, and what it counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.markers import KINDS, Picture, caption, cross, false_alarms, measure, meet, percent, rate, tables
from scipy.ndimage import binary_erosion

from benchmarks import markers


def picture(grey: int = 50) -> Picture:
    mask = np.zeros((120, 160), bool)
    mask[40:80, 50:90] = True
    return Picture(np.full((120, 160), grey, np.uint8), mask)


def test_the_interval_is_that_of_wilson() -> None:
    for hits, n in ((0, 10), (7, 10), (50, 50), (13, 100)):
        found = rate(hits, n)
        for p in (found.low, found.high):  # where the share lies 1.96 standard errors of p away from p
            assert (hits / n - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / n, abs=1e-6)
        assert found.low <= hits / n <= found.high
    assert percent(rate(7, 10)._asdict()) == "70 (40-89)"


@pytest.mark.parametrize("arm", markers.ARMS)
@pytest.mark.parametrize("width", markers.WIDTHS)
def test_a_cross_is_drawn_on_the_border_with_its_grey(arm: int, width: int) -> None:
    clean = picture()
    marked, (left, top, across, down) = cross(clean, arm, width, 100, np.random.default_rng(arm))
    y, x = np.nonzero(marked != clean.grey)
    assert set(marked[y, x].tolist()) == {150}
    assert (across, down) == (2 * arm + 1, 2 * arm + 1)
    assert x.min() >= left - width
    assert y.min() >= top - width
    border = clean.mask & ~binary_erosion(clean.mask)
    assert border[top + arm, left + arm]


@pytest.mark.parametrize("edge", markers.EDGES)
def test_a_caption_stays_in_its_rectangle(edge: str) -> None:
    clean = picture()
    drawn = caption(clean, 12, edge, 140, np.random.default_rng(3))
    assert drawn is not None
    marked, (left, top, width, height) = drawn
    y, x = np.nonzero(marked != clean.grey)
    assert x.min() >= left - 1
    assert x.max() <= left + width
    assert y.min() >= top - 1
    assert y.max() <= top + height
    assert marked.max() == 190
    assert (len(np.unique(marked)) == 2) == (edge == "sharp")
    small = Picture(np.zeros((9, 9), np.uint8), np.ones((9, 9), bool))
    assert caption(small, 12, edge, 60, np.random.default_rng(0)) is None


def test_rectangles_meet_where_they_share_a_pixel() -> None:
    assert meet((0, 0, 5, 5), (4, 4, 9, 9))
    assert not meet((0, 0, 5, 5), (5, 0, 9, 9))
    assert not meet((0, 0, 5, 5), (0, 5, 9, 9))


def test_flat_images_give_all_markers_and_no_false_alarm() -> None:
    rows = measure([picture(), picture(70)], seed=1)
    assert len(rows) == sum(len(k.sizes) * len(k.looks) * len(markers.CONTRASTS) for k in KINDS.values())
    plain = [row for row in rows if row["kind"] == "calliper" and row["contrast"] >= 140]
    assert all(row["hits"] == row["n"] == 2 for row in plain)
    assert false_alarms([picture()])["text"]["hits"] == 0
    assert tables(rows).count("\n|") == 4 + sum(len(k.sizes) for k in KINDS.values())


def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(markers, "phantoms", lambda each, seed: [picture()] * each)
    monkeypatch.setattr("sys.argv", ["markers", "--images", "2", "--out", str(tmp_path / "m.json")])
    markers.main()
    written = json.loads((tmp_path / "m.json").read_text())
    assert written["phantom"]["images"] == 2
    assert written["seed"] == 2000
    assert "text: 0 (0-66)" in capsys.readouterr().out
