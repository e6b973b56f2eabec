"""Several data sets as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from semidg.data.index import Index, build_index, read_index, write_index
from semidg.data.lists import read_split, write_split
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import DataError

from .support import make_busi, make_folders, save, square, texture


def _three(folder: Path) -> tuple[Path, list[Path]]:
    """A BUSI data set below one folder, folders and a table below another; the table's twin of an image of BUSI."""
    make_busi(folder / "one" / "busi" / "Dataset_BUSI_with_GT")
    make_folders(folder / "two" / "ours", domains=("left", "right"))
    save(folder / "two" / "theirs" / "scans" / "x.png", texture(1))
    save(folder / "two" / "theirs" / "scans" / "y.png", texture(77))
    save(folder / "two" / "theirs" / "scans" / "y_m.png", square())
    table = folder / "two" / "theirs" / "list.csv"
    table.write_text("image,mask,group\nscans/x.png,,p\nscans/y.png,scans/y_m.png,p\n")
    return folder / "one" / "busi", [folder / "two" / "ours", table]


def test_each_root_is_a_domain_and_twins_are_found_across_them(tmp_path: Path) -> None:
    root, more = _three(tmp_path)
    (more[0] / "groups.csv").write_text("image,group\nleft/images/0.png,p\nright/images/2.png,p\n")
    index = build_index(root, more_roots=more)
    assert (index.root, index.layout) == (tmp_path, "several")
    assert [sum(r.domain == d for r in index.records) for d in ("busi", "ours", "theirs")] == [6, 8, 2]
    records = {r.id: r for r in index.records}
    assert len(records) == 16
    one = records["busi/benign/benign (1)"]
    assert one.image == "one/busi/Dataset_BUSI_with_GT/benign/benign (1).png"
    assert one.class_name == "benign"
    assert records["theirs/scans/x"].group == records["theirs/scans/y"].group == one.id
    assert records["ours/right/2"].group == "ours/left/0"
    assert records["theirs/scans/y"].masks == ("two/theirs/scans/y_m.png",)


def test_index_and_split_of_several_roots_are_read_again(tmp_path: Path) -> None:
    root, more = _three(tmp_path / "data")
    index = build_index(root, more_roots=more)
    write_index(index, tmp_path / "run" / "index.csv")
    split = make_split(index.records, SplitConfig(target="ours"), 0.5, 0)
    assert {r.domain for r in split.test} == {"ours"}
    write_split(split, index.root, tmp_path / "run" / "split")
    again = read_index(tmp_path / "run" / "index.csv", root, more)
    assert again == Index(tmp_path / "data", "several", index.records)
    assert read_split(tmp_path / "run" / "split", again.records, again.root).parts() == split.parts()
    assert read_index(tmp_path / "run" / "index.csv", tmp_path / "data").records == index.records  # moved together


def test_an_index_that_names_a_file_outside_the_roots_is_refused(tmp_path: Path) -> None:
    root, more = _three(tmp_path)
    index = build_index(root, more_roots=more)
    write_index(index, tmp_path / "index.csv")
    with pytest.raises(DataError, match=r"two/theirs/scans/x\.png: lies in none of data\.root and data\.more_roots"):
        read_index(tmp_path / "index.csv", root, more[:1])


def test_roots_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    roots = [make_folders(tmp_path / place / "data", domains=(place,)) for place in ("a", "b")]
    index = build_index(roots[0], more_roots=roots[1:])
    assert {r.domain for r in index.records} == {"a/data", "b/data"}


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    roots = [make_folders(tmp_path / "real" / place, domains=(place,)) for place in ("a", "b")]
    (tmp_path / "link").symlink_to(roots[0])
    index = build_index(tmp_path / "link", more_roots=roots[1:])
    assert index.root == tmp_path / "real"
    assert {r.domain for r in index.records} == {"a", "b"}


def test_roots_in_one_another_and_missing_ones_are_refused(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    make_folders(tmp_path / "d" / "inner")
    for more, reason in (
        (root, "lies in"),
        (root / "inner", "lies in"),
        (tmp_path, "lies in"),
        (tmp_path / "none", "does not exist; correct data.root or data.more_roots"),
    ):
        with pytest.raises(DataError, match=reason):
            build_index(root, more_roots=[more])


def test_problems_of_all_roots_are_listed_together(tmp_path: Path) -> None:
    roots = [make_folders(tmp_path / place, domains=("x",)) for place in ("a", "b")]
    for root in roots:
        save(root / "x" / "masks" / "lost.png", square())
    with pytest.raises(DataError) as caught:
        build_index(roots[0], more_roots=roots[1:])
    assert "mask without image (2;" in str(caught.value)
    assert "a: x/masks/lost.png" in str(caught.value)
    assert "b: x/masks/lost.png" in str(caught.value)


def test_a_run_finds_its_data_beside_another_data_set(tmp_path: Path) -> None:
    """The root of BUSI was found by its layout; that of a table is its folder, whatever lies there."""
    root = tmp_path / "z"
    make_busi(root / "BUSI")
    make_folders(root / "other_data", domains=("x",))
    (root / "t.csv").write_text("image\nother_data/x/images/0.png\nother_data/x/images/1.png\n")
    for given, layout, again in ((root, "busi", root), (root / "t.csv", "csv", root), (root / "t.csv", "auto", root)):
        index = build_index(given, layout)
        write_index(index, tmp_path / "index.csv")
        found = read_index(tmp_path / "index.csv", again, layout=layout)
        assert found.records == index.records
        assert all((found.root / record.image).is_file() for record in found.records)
