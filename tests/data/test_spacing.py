"""Pixel spacing on its way from spacing.csv to the record, the index and the parts of a split."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.data.index import COLUMNS, SPACING_COLUMNS, Index, build_index, read_index, write_index
from semidg.data.lists import read_split, write_split
from semidg.data.phantom import SCANNERS, write_phantom
from semidg.data.spacing import parse_spacing
from semidg.data.splits import make_split
from semidg.data_config import SplitConfig
from semidg.errors import DataError

from .support import make_busi, make_folders, record

HEAD = "image,row_mm,column_mm\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Domains a and b with the labelled images 0, 1, 2 and the unlabelled image 3."""
    return make_folders(tmp_path / "d")


def spacings(root: Path) -> dict[str, tuple[float, float] | None]:
    return {r.id: r.spacing for r in build_index(root).records}


def test_a_domain_gives_all_its_images_a_spacing_and_an_image_has_its_own(data: Path) -> None:
    for lines in (["a,0.1,0.2", "a/images/1.png,0.3,0.4"], ["a/images/1.png,0.3,0.4", "a,0.1,0.2"]):
        (data / "spacing.csv").write_text(HEAD + "\n".join(lines))
        found = spacings(data)
        assert [found[f"a/{n}"] for n in range(4)] == [(0.1, 0.2), (0.3, 0.4), (0.1, 0.2), (0.1, 0.2)]
        assert [found[f"b/{n}"] for n in range(4)] == [None] * 4


def test_without_the_file_no_spacing_is_known_and_busi_has_none(data: Path, tmp_path: Path) -> None:
    assert set(spacings(data).values()) == {None}
    busi = make_busi(tmp_path / "busi")
    (busi / "spacing.csv").write_text(HEAD + "benign,0.1,0.1\n")
    assert {r.spacing for r in build_index(busi).records} == {None}


def test_columns_of_any_order_more_columns_a_mark_and_quotes_are_read(data: Path) -> None:
    text = '\ufeffscanner,column_mm,image,row_mm\r\nx,0.2,"a",1e-1\r\n\r\n'
    (data / "spacing.csv").write_text(text, "utf-8", newline="")
    assert spacings(data)["a/0"] == (0.1, 0.2)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("a,0,1", r"line 2: spacing '0' x '1'.* above 0"),
        ("b,1,1\na,1,-1", "line 3: spacing"),
        ("a,nan,1", "line 2: spacing"),
        ("a,1,inf", "line 2: spacing"),
        ("a,1,", "line 2: spacing"),
        ("a,1;1,1", "line 2: spacing"),
        ("c,1,1", "line 2: 'c' is no image and no domain"),
        ("a/images/9.png,1,1", "line 2: 'a/images/9.png' is no image"),
        ("a/masks/0.png,1,1", "line 2: 'a/masks/0.png' is no image"),
        ("A/images/0.png,1,1", "line 2: .* is no image"),
        ("../d/a/images/0.png,1,1", "line 2: .*below the data set's root"),
        ("/etc/passwd,1,1", "line 2: .*below the data set's root"),
        (",1,1", "line 2: an empty path"),
        ("a,1,1\na,1,1", "line 3: 'a' stands twice"),
        ("a,1", "line 2: has another number of columns"),
        ("a,1,1,1", "line 2: has another number of columns"),
        ('"a,1,1', "not a CSV file"),
    ],
)
def test_a_bad_line_is_refused_and_named(data: Path, lines: str, reason: str) -> None:
    (data / "spacing.csv").write_text(HEAD + lines + "\n")
    with pytest.raises(DataError, match=reason) as caught:
        build_index(data)
    assert str(data / "spacing.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_file_is_refused(data: Path, tmp_path: Path) -> None:
    path = data / "spacing.csv"
    for content, reason in (
        (b"image,row_mm\na,1\n", "no column column_mm"),
        (b"", "no column"),
        (b"\xff\xfe", "UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason):
            build_index(data)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        build_index(data)
    path.rmdir()
    (tmp_path / "outside.csv").write_text(HEAD)
    for target in ("../outside.csv", "nowhere.csv"):
        path.symlink_to(target)
        with pytest.raises(DataError, match=r"spacing\.csv"):
            build_index(data)
        path.unlink()


def test_the_index_file_has_the_columns_only_where_a_spacing_is_known(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    write_index(build_index(data), path)
    assert tuple(pd.read_csv(path).columns) == COLUMNS
    (data / "spacing.csv").write_text(HEAD + "a,0.1,0.30000000000000004\n")
    index = build_index(data)
    write_index(index, path)
    table = pd.read_csv(path)
    assert tuple(table.columns) == (*COLUMNS, *SPACING_COLUMNS)
    assert table["row_mm"].isna().tolist() == [False] * 4 + [True] * 4
    assert read_index(path, data) == index


positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.tuples(positive, positive), min_size=1, max_size=4))
def test_an_index_file_gives_back_every_spacing(
    tmp_path_factory: pytest.TempPathFactory, values: list[tuple[float, float] | None]
) -> None:
    folder = tmp_path_factory.mktemp("x")
    records = tuple(replace(record(str(n)), spacing=value) for n, value in enumerate(values))
    write_index(Index(folder, "folders", records), folder / "index.csv")
    assert read_index(folder / "index.csv", folder).records == records


@pytest.mark.parametrize("cells", [("0", "1"), ("0.1", ""), ("", "0.1"), ("x", "1"), ("nan", "nan")])
def test_a_bad_spacing_in_an_index_file_is_refused_with_the_row(
    data: Path, tmp_path: Path, cells: tuple[str, str]
) -> None:
    (data / "spacing.csv").write_text(HEAD + "a,0.1,0.1\n")
    path = tmp_path / "index.csv"
    write_index(build_index(data), path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[2][-2:] = cells
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(DataError, match="image 2: spacing"):
        read_index(path, data)


def test_a_split_keeps_the_spacing(data: Path, tmp_path: Path) -> None:
    (data / "spacing.csv").write_text(HEAD + "a,0.1,0.2\nb,0.3,0.3\n")
    index = build_index(data)
    split = make_split(index.records, SplitConfig(protocol="random", seed=0), labelled=0.5, seed=0)
    write_split(split, data, tmp_path / "split")
    again = read_split(tmp_path / "split", index.records, data)
    found = [r for records in again.parts().values() for r in records]
    assert len(found) == 8
    assert all(r.spacing == {"a": (0.1, 0.2), "b": (0.3, 0.3)}[r.domain] for r in found)


def test_the_phantom_tells_the_size_of_its_pixels(tmp_path: Path) -> None:
    write_phantom(tmp_path / "p", 1, 48)
    records = build_index(tmp_path / "p").records
    assert [r.domain for r in records] == list(SCANNERS)
    for r in records:
        scanner = SCANNERS[r.domain]
        assert r.spacing == (scanner.width_mm / 48, scanner.width_mm / 48)
        assert r.height * r.spacing[0] == pytest.approx(scanner.depth_mm, abs=r.spacing[0] / 2)


def test_a_spacing_is_two_numbers() -> None:
    assert parse_spacing(" 0.5", "2") == (0.5, 2.0)
