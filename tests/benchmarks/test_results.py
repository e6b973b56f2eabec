"""The file of results and the page made from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmarks.__main__ import BENCHMARKS, PAGE, RESULTS
from benchmarks.figure import Figure
from benchmarks.results import Entry, merge, read, render, table, to_json

from semidg.errors import DataError


def entry(*figures: Figure) -> Entry:
    about = {"quick": False, "commit": "abc", "date": "2026-01-02", "python": "3.11", "torch": "2.14"}
    return about | {"figures": to_json(figures), "threads": 2, "processor": "P", "load": [0.5, 1.25]}


def test_the_page_says_what_the_file_says() -> None:
    page = PAGE.read_text("utf-8")
    assert page == render(page, read(RESULTS)), "run: python -m benchmarks --table"


def test_every_benchmark_has_a_place_in_the_page_and_no_quick_one_is_in_it() -> None:
    page = PAGE.read_text("utf-8")
    assert set(re.findall(r"<!-- end of ([\w-]+) -->", page)) == set(BENCHMARKS)
    entries = read(RESULTS)
    assert set(entries) <= set(BENCHMARKS)
    assert not any(one["quick"] for ones in entries.values() for one in ones)


def test_the_file_says_nothing_of_the_machine_but_its_processor() -> None:
    keys = {"commit", "date", "figures", "load", "processor", "python", "quick", "threads", "torch"}
    assert all(set(one) == keys for ones in read(RESULTS).values() for one in ones)
    assert "/home/" not in RESULTS.read_text("utf-8")
    assert "/tmp/" not in RESULTS.read_text("utf-8")


def test_a_merge_replaces_one_entry_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "new" / "performance.json"
    first, second = entry(Figure("a", 1.23456789, 1, 2)), entry(Figure("b", 2, 2, 2, unit="s", target=3))
    merge(path, "one", first)
    merge(path, "two", first)
    merge(path, "one", second)
    assert read(path) == {"one": [second], "two": [first]}
    assert read(path)["two"][0]["figures"][0]["median"] == 1.2346
    merge(path, "one", first | {"processor": "Q"})
    merge(path, "one", first)
    assert read(path)["one"] == [first, first | {"processor": "Q"}]  # one a processor
    assert [p.name for p in path.parent.iterdir()] == ["performance.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"step": 1}', '{"step": [{"figures": [{"name": "x"}]}]}', "\x00"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "performance.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"performance\.json: holds no results"):
        merge(path, "one", entry())
    assert path.read_text() == text


def test_a_table_lists_figures_with_their_targets() -> None:
    figures = (
        Figure("ratio", 1.2, 1.15, 1.3, target=1.1),
        Figure("speed", 12.34, 12.34, 12.34, unit="s", target=10, at_most=False),
        Figure("memory", 1234.5, 1200.0, 1300.0, unit="MB"),
    )
    assert table(entry(*figures)).splitlines() == [
        "| figure | median (quartiles) | target |  |",
        "| --- | --- | --- | --- |",
        "| ratio | 1.200 (1.150 to 1.300) | at most 1.1 | missed |",
        "| speed | 12.3 s | at least 10 | reached |",
        "| memory | 1,234 (1,200 to 1,300) MB |  |  |",
        "",
        "Commit abc, 2026-01-02, P, 2 threads, load 0.5 at its begin and 1.2 at its end; Python 3.11, PyTorch 2.14.",
    ]


def test_names_of_rows_and_columns_make_a_crossed_table() -> None:
    figures = (Figure("a: x", 1, 1, 1, target=2), Figure("a: y", 2, 2, 2), Figure("b: y", 3, 3, 3))
    assert table(entry(*figures)).splitlines()[:4] == [
        "|  | x | y |",
        "| --- | --- | --- |",
        "| a | 1.000; at most 2: reached | 2.000 |",
        "| b |  | 3.000 |",
    ]


def test_a_page_is_filled_again_and_again_and_knows_no_table_without_a_place() -> None:
    page = "before\n\n<!-- a -->\nold\n<!-- end of a -->\n\n<!-- b -->\n<!-- end of b -->\nafter\n"
    entries = {"a": [entry(Figure("x", 1, 1, 1)), entry(Figure("y", 2, 2, 2))]}
    filled = render(page, entries)
    assert filled.startswith("before\n\n<!-- a -->\n\n| figure |")
    assert filled.endswith("<!-- b -->\n\nNot measured yet.\n\n<!-- end of b -->\nafter\n")
    assert filled.count("| figure |") == 2
    assert "old" not in filled
    assert render(filled, entries) == filled
    with pytest.raises(DataError, match="no place for c"):
        render(page, {"c": entries["a"]})


def test_numbers_become_plain_json() -> None:
    found = to_json([Figure("x", 1 / 3, 0.1, 2.0, details={"many": (1.0000001, 7), 3: None})])
    assert json.loads(json.dumps(found)) == [
        {"name": "x", "median": 0.33333, "q25": 0.1, "q75": 2.0, "unit": "", "target": None, "at_most": True,
         "details": {"many": [1.0, 7], "3": None}}
    ]  # fmt: skip
