"""The page is one file, complete, escaped and readable."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from semidg.errors import RunError
from semidg.report.figures import dice_chart
from semidg.report.page import write_page
from semidg.report.png import save_png

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Collects what a browser would show, and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.names: list[str | None] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        self.names += [value for name, value in attrs if name in {"alt", "aria-label"}]
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data


def outline(path: Path) -> Outline:
    parser = Outline()
    parser.feed(path.read_text("utf-8"))
    assert not parser.open
    return parser


def test_page_is_complete_and_needs_no_network(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    save_png(np.zeros((4, 4, 3), np.uint8), picture)
    table = pd.DataFrame({"method": ["epl"], "dice": [0.71234]})
    page = tmp_path / "out" / "page.html"
    write_page(page, "Title", "First.\n\nSecond.", [("Results", table)], [("Masks", picture)], {"seed": "0"})
    seen = outline(page)
    assert seen.tags.count("p") == 2
    for word in ("Title", "First.", "Second.", "Results", "epl", "0.712", "Masks", "seed"):
        assert word in seen.text
    assert all(link.startswith("data:") for link in seen.links)
    embedded = next(link for link in seen.links if link.startswith("data:image/png;base64,"))
    assert base64.b64decode(embedded.split(",")[1]) == picture.read_bytes()
    text = page.read_text("utf-8")
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert not re.search(r"https?://|@import|<script", text)
    assert [p.name for p in page.parent.iterdir()] == ["page.html"]


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>&amp;\'"'
    picture = tmp_path / "a.png"
    save_png(np.zeros((4, 4), np.uint8), picture)
    table = pd.DataFrame({evil: [evil]})
    page = tmp_path / "page.html"
    write_page(page, evil, evil, [(evil, table)], [(evil, picture)], {evil: evil})
    seen = outline(page)
    assert "script" not in seen.tags
    # title twice, summary, caption, heading, cell, figure caption, detail and its name
    assert seen.text.count(evil) == 9
    assert seen.names == [evil, evil]


def cells(tmp_path: Path, table: pd.DataFrame) -> list[str]:
    write_page(tmp_path / "t.html", "t", "s", [("c", table)], [], {})
    return outline(tmp_path / "t.html").cells


def test_numbers_are_written_alike_in_a_column_and_small_ones_do_not_become_zero(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"dice": [0.5, np.nan], "hd95": [9.25, 100.04], "p": [1.234e-9, 0.04], "n": [3, 1200], "word": ["a", None]}
    )
    assert cells(tmp_path, table)[5:] == [
        *("0.500", "9.2", "1.2e-09", "3", "a"),
        *("–", "100.0", "0.040", "1200", "–"),
    ]
    html = (tmp_path / "t.html").read_text("utf-8")
    assert html.count('class="number"') == 3 * 4


def test_only_a_named_index_is_shown(tmp_path: Path) -> None:
    table = pd.DataFrame({"dice": [0.5]}, index=[7])
    assert cells(tmp_path, table) == ["dice", "0.500"]
    assert cells(tmp_path, table.rename_axis("fold")) == ["fold", "dice", "7", "0.500"]
    grouped = pd.DataFrame({("dice", "mean"): [0.5], ("dice", "std"): [0.1]}, index=pd.Index(["epl"], name="method"))
    assert cells(tmp_path, grouped)[1:3] == ["dice · mean", "dice · std"]


def test_a_figure_of_known_resolution_keeps_its_size(tmp_path: Path) -> None:
    dice_chart({"a": pd.DataFrame({"domain": ["A"], "dice": [0.5]})}, tmp_path / "d.png")
    write_page(tmp_path / "p.html", "t", "s", [], [("chart", tmp_path / "d.png")], {})
    assert 'width="432"' in (tmp_path / "p.html").read_text("utf-8")  # 4.5 inches of 96


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("gone.png", None, "cannot be read"), ("a.txt", b"x", "only PNG"), ("bad.png", b"no picture", "not a readable")],
)
def test_a_picture_that_cannot_be_embedded_is_named_and_nothing_is_written(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    page = tmp_path / "p.html"
    with pytest.raises(RunError, match=f"{re.escape(name)}: .*{message}"):
        write_page(page, "t", "s", [], [("x", tmp_path / name)], {})
    assert not page.exists()
