"""Leaving images out by the user's list: what is read, what is refused, and what does not change."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.config_file import parse_config
from semidg.data.exclude import read_exclusions
from semidg.data.index import build_index
from semidg.data.splits import make_split, write_split
from semidg.data_config import SplitConfig
from semidg.errors import ConfigError, DataError

from .support import make_busi, make_folders, save, save_series, square, texture


def table(path: Path, *rows: tuple[str, str, str], columns: tuple[str, ...] = ("id", "other", "exclude")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def test_marks(tmp_path: Path) -> None:
    path = table(
        tmp_path / "issues.csv",
        ("a/1", "", "yes"),
        ("a/2", "a/3", ""),
        ("a/4", "a/5", "Other "),
        ("a/6", "a/7", "both"),
        ("a/8", "", "no"),
        ("a/1", "b/é,1", "BOTH"),
    )
    assert read_exclusions(path) == ("a/1", "a/5", "a/6", "a/7", "b/é,1")
    assert read_exclusions(table(tmp_path / "own.csv", ("a/1", "yes"), columns=("id", "exclude"))) == ("a/1",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a/1", "", "maybe")], "row 1: exclude = 'maybe'; write yes, other, both"),
        ([("a/1", "", ""), ("a/1", "", "other")], "row 2: exclude = other, but the row names no such image"),
        ([("", "", "yes")], "row 1: exclude = yes"),
        ([("a/1", "", "")], "no row is marked"),
        ([], "no row is marked"),
    ],
)
def test_a_table_that_says_nothing_clear_is_refused(
    rows: list[tuple[str, str, str]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_exclusions(table(tmp_path / "issues.csv", *rows))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_exclusions(tmp_path / "nowhere.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_exclusions(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(DataError, match="id, exclude are missing"):
        read_exclusions(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("id,exclude\na/1\n")
    with pytest.raises(DataError, match="no row is marked"):
        read_exclusions(tmp_path / "x.csv")


@given(st.sets(st.integers(0, 7), min_size=1, max_size=5))
@settings(max_examples=10)
def test_the_others_keep_their_groups_and_the_split_says_who_is_out(
    tmp_path_factory: pytest.TempPathFactory, left: set[int]
) -> None:
    root = make_folders(tmp_path_factory.mktemp("d"), images=3, unlabelled=1)
    for k in range(2):  # a chain of twins
        save(root / "a" / "images" / f"twin{k}.png", texture(1000) + k)
    everything = build_index(root)
    ids = sorted(record.id for record in everything.records)
    out = sorted(ids[k] for k in left)
    path = table(root / "issues.csv", *((name, "", "yes") for name in out))
    index = build_index(root, exclude=path)
    assert index.excluded == tuple(out)
    assert index.records == tuple(record for record in everything.records if record.id not in out)
    split = make_split(index.records, SplitConfig(validation=0, test=0), 1.0, 0, index.excluded)
    write_split(split, index.root, root / "lists")
    meta = json.loads((root / "lists" / "split.json").read_text())
    assert meta["left_out"]["by the user"] == out
    parts = {record.id for records in split.parts().values() for record in records}
    assert parts == {*ids} - {*out}


def test_unknown_ids_are_refused(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    path = table(tmp_path / "issues.csv", ("a/0", "", "yes"), ("a/77", "z/1", "both"))
    with pytest.raises(DataError, match=r"issues\.csv: 2 image\(s\) .* not in the data set: a/77, z/1"):
        build_index(root, exclude=path)


def test_a_bad_file_that_is_left_out_does_not_matter(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    (root / "a" / "images" / "0.png").write_bytes(b"")
    save(root / "b" / "masks" / "1.png", square(), None)
    with pytest.raises(DataError, match="0 bytes"):
        build_index(root)
    index = build_index(root, exclude=table(tmp_path / "issues.csv", ("a/0", "", "yes")))
    assert "a/0" not in {record.id for record in index.records}
    assert index.excluded == ("a/0",)


@pytest.mark.parametrize("name", ["bad.png", "bad.nii.gz", "bad.dcm", "bad.tif"])
def test_a_file_of_any_format_that_cannot_be_read_can_be_left_out(tmp_path: Path, name: str) -> None:
    root = make_folders(tmp_path / "d")
    (root / "a" / "images" / name).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=name):
        build_index(root)
    index = build_index(root, exclude=table(tmp_path / "issues.csv", ("a/bad", "", "yes")))
    assert (len(index.records), index.excluded) == (8, ("a/bad",))
    more = table(tmp_path / "more.csv", ("d/a/bad", "", "yes"))
    assert len(build_index(root, more_roots=[make_folders(tmp_path / "e")], exclude=more).records) == 16


def test_a_series_that_is_no_volume_can_be_left_out_as_a_whole(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    stack = np.stack([texture(70 + k) for k in range(3)])
    save_series(root / "a" / "images" / "p", stack, each={"ImagePositionPatient": [[0, 0, 0], [0, 0, 3], [0, 0, 3]]})
    with pytest.raises(DataError, match="is no volume"):
        build_index(root)
    rows = [(f"a/p/{k}", "", "yes") for k in (1, 2, 3)]
    assert len(build_index(root, exclude=table(tmp_path / "all.csv", *rows)).records) == 8
    with pytest.raises(DataError, match="is no volume"):
        build_index(root, exclude=table(tmp_path / "some.csv", *rows[:2]))


def test_the_normal_class_of_busi_is_known_though_it_is_not_used(tmp_path: Path) -> None:
    root = make_busi(tmp_path / "d")
    path = table(tmp_path / "issues.csv", ("normal/normal (1)", "benign/benign (1)", "both"))
    assert build_index(root, exclude=path).excluded == ("benign/benign (1)", "normal/normal (1)")
    assert "normal/normal (1)" not in {r.id for r in build_index(root, include_normal=True, exclude=path).records}


def test_lists_of_ones_own_are_not_thinned() -> None:
    with pytest.raises(ConfigError, match="make them with `semidg split --exclude`"):
        parse_config({"data": {"split": {"lists": "lists", "exclude": "issues.csv"}}}, "options")
