from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semidg.data import busi
from semidg.data.index import COLUMNS, Index, build_index, read_index, write_index
from semidg.data.paths import Problems, natural_key, resolve_inside
from semidg.errors import DataError, SemidgError
from semidg.types import Frame, Record

from .support import largest_file, make_busi, make_folders, save, square, texture


def _by_id(index: Index) -> dict[str, Record]:
    return {record.id: record for record in index.records}


def test_busi_is_recognised_from_its_folder_and_from_the_one_above(tmp_path: Path) -> None:
    inner = make_busi(tmp_path / "busi" / "Dataset_BUSI_with_GT")
    for root in (inner, inner.parent):
        index = build_index(root)
        assert (index.layout, index.root) == ("busi", inner)
        assert len(index.records) == 6
        assert {record.domain for record in index.records} == {"benign", "malignant"}
    assert index.records[0] == Record(
        "benign/benign (1)",
        "benign/benign (1).png",
        ("benign/benign (1)_mask.png",),
        "benign",
        "benign",
        "benign/benign (1)",
        40,
        30,
    )


def test_busi_normal_images_come_only_when_asked_for_and_have_an_empty_mask(tmp_path: Path) -> None:
    make_busi(tmp_path, normal=2)
    with_normal = build_index(tmp_path, include_normal=True)
    assert len(with_normal.records) == len(build_index(tmp_path).records) + 2
    assert with_normal.records[-1].class_name == "normal"
    assert with_normal.records[-1].labelled


def test_busi_numbers_are_in_natural_order_and_all_masks_belong_to_their_image(tmp_path: Path) -> None:
    make_busi(tmp_path, benign=11)
    for suffix in ("_mask_1", "_mask_2", "_mask_10"):
        save(tmp_path / "benign" / f"benign (2){suffix}.png", square(at=12), "RGBA")
    records = build_index(tmp_path).records
    assert [record.id for record in records[:3]] == ["benign/benign (1)", "benign/benign (2)", "benign/benign (3)"]
    endings = [mask.removeprefix("benign/benign (2)") for mask in records[1].masks]
    assert endings == ["_mask.png", "_mask_1.png", "_mask_2.png", "_mask_10.png"]


def test_busi_colour_images_stray_files_and_an_unlabelled_image_are_no_problem(tmp_path: Path) -> None:
    make_busi(tmp_path)
    save(tmp_path / "benign" / "benign (5).png", texture(77, channels=3))
    for name in ("README.md", "benign/Thumbs.db", "benign/._benign (1).png", "benign/.DS_Store"):
        (tmp_path / name).write_text("no image")
    index = build_index(tmp_path)
    assert len(index.records) == 7
    assert not _by_id(index)["benign/benign (5)"].labelled


def test_folders_with_subfolders_other_endings_and_unlabelled_images(tmp_path: Path) -> None:
    make_folders(tmp_path, domains=("site b", "site a"))
    save(tmp_path / "site a" / "images" / "p1" / "x.JPG", texture(50))
    save(tmp_path / "site a" / "masks" / "p1" / "x_mask.png", square())
    save(tmp_path / "site a" / "images" / "y_mask.png", texture(51))  # an image whose own name ends so
    save(tmp_path / "site a" / "masks" / "y_mask.tif", square())
    index = build_index(tmp_path)
    records = _by_id(index)
    assert index.layout == "folders"
    assert len(records) == 10
    assert records["site a/p1/x"].masks == ("site a/masks/p1/x_mask.png",)
    assert records["site a/y_mask"].masks == ("site a/masks/y_mask.tif",)
    assert not records["site b/3"].labelled
    assert {(record.domain, record.class_name) for record in index.records} == {("site a", ""), ("site b", "")}


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system makes the two forms one")
def test_a_mask_belongs_to_an_image_whose_umlaut_is_written_otherwise(tmp_path: Path) -> None:
    composed, decomposed = "M\u00e4rz", "Ma\u0308rz"
    for folder, name, picture in (("images", decomposed, texture(1)), ("masks", composed, square())):
        save(tmp_path / "site" / folder / f"{name}.png", picture)
    (record,) = build_index(tmp_path).records
    assert record.id == f"site/{composed}"
    assert (tmp_path / record.image).is_file()
    assert record.masks == (f"site/masks/{composed}.png",)


def test_a_data_set_without_any_mask_is_no_error(tmp_path: Path) -> None:
    make_folders(tmp_path, images=0, unlabelled=3)
    assert not any(record.labelled for record in build_index(tmp_path).records)


def test_twins_share_a_group_named_by_the_first_of_them(tmp_path: Path) -> None:
    make_busi(tmp_path)
    shutil.copy(tmp_path / "benign" / "benign (3).png", tmp_path / "malignant" / "malignant (2).png")
    records = _by_id(build_index(tmp_path))
    assert records["malignant/malignant (2)"].group == "benign/benign (3)" == records["benign/benign (3)"].group
    assert len({record.group for record in records.values()}) == 5
    assert len({record.group for record in build_index(tmp_path, similarity=1.0).records}) == 6


def _spoil(root: Path) -> dict[str, list[str]]:
    """Spoil a BUSI folder in every way; the lines that the one error must hold, by kind."""
    folder = root / "benign"
    (folder / "benign (1).png").write_bytes((folder / "benign (1).png").read_bytes()[:60])
    save(folder / "benign (2)_mask.png", texture(9))
    save(folder / "benign (3)_mask.png", square(width=41))
    save(folder / "benign (30)_mask.png", square())
    save(root / "malignant" / "malignant (9)_mask_1.png", square())
    save(folder / "benign (4).jpg", texture(5))
    (folder / "benign (8).png").symlink_to("nowhere.png")
    return {
        "file that cannot be used (2": ["benign (1).png: damaged", "benign (2)_mask.png: mask with grey values"],
        "mask without image (2": ["benign/benign (30)_mask.png", "malignant/malignant (9)_mask_1.png"],
        "size of image and mask differ (1": ["benign/benign (3).png is 40 x 30, benign/benign (3)_mask.png is 41 x 30"],
        "name that is not unique (1": ["benign/benign (4).jpg and benign/benign (4).png"],
        "path that is not accepted (1": ["benign/benign (8).png: a broken link"],
    }


def test_one_error_lists_all_problems_by_kind_with_the_mend(tmp_path: Path) -> None:
    make_busi(tmp_path)
    expected = _spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        build_index(tmp_path)
    text = str(caught.value)
    for kind, lines in expected.items():
        assert kind in text
        for line in lines:
            assert line in text
    assert text.startswith(f"{tmp_path}: 7 problem(s)")


def test_skip_bad_leaves_the_bad_records_out_and_says_so(tmp_path: Path) -> None:
    make_busi(tmp_path)
    _spoil(tmp_path)
    index = build_index(tmp_path, skip_bad=True)
    assert [record.id for record in index.records] == [
        "benign/benign (4)",
        "malignant/malignant (1)",
        "malignant/malignant (2)",
    ]
    assert len(index.skipped) == 7


def test_skip_bad_is_still_an_error_where_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / "images" / "x.png").write_text("")
    with pytest.raises(DataError, match=r"x\.png: is empty"):
        build_index(tmp_path, skip_bad=True)


def test_roots_that_are_no_data_set_are_explained(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "bare" / "images").mkdir(parents=True)
    (tmp_path / "void" / "a" / "images").mkdir(parents=True)
    for name, reason in {
        "missing": "does not exist",
        "file": "is not a folder",
        "empty": "no image found; expected .*benign/",
        "bare": "no image found in the layout 'folders'",
        "void": "no image found in the layout 'folders'",
    }.items():
        with pytest.raises(DataError, match=reason) as caught:
            build_index(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="unknown layout"):
        build_index(tmp_path / "void", layout="dicom")
    make_folders(tmp_path / "f")
    with pytest.raises(DataError, match="expected benign/"):
        build_index(tmp_path / "f", layout="busi")


def test_images_and_masks_in_the_root_itself_are_one_domain(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "data", ("north",))
    found = build_index(root / "north").records
    assert {record.domain for record in found} == {"north"}
    below = [record for record in build_index(root).records if record.domain == "north"]
    assert [record.id for record in found] == [record.id.removeprefix("north/") for record in below]
    assert [record.masks for record in found] == [
        tuple(mask.removeprefix("north/") for mask in record.masks) for record in below
    ]
    save(root / "images" / "1.png", texture(77))
    save(root / "masks" / "1.png", square())
    with pytest.raises(DataError, match=r"holds images/ itself, and so do folders in it \(north\)"):
        build_index(root)
    shutil.rmtree(root / "images")
    shutil.rmtree(root / "masks")
    (root / "north").rename(root / "images")  # a domain that is called so
    assert {record.domain for record in build_index(root).records} == {"images"}
    (root / "images").rename(root / "north")
    (root / "north" / "masks").rename(root / "north" / "labels")  # perhaps masks, perhaps not: not passed over
    with pytest.raises(DataError, match=r"look like --images 'images/\*' --masks 'labels/\*'"):
        build_index(root / "north")


def test_a_data_set_of_another_layout_beside_images_and_masks_stays_what_it_is(tmp_path: Path) -> None:
    root = make_busi(tmp_path)
    save(root / "images" / "1.png", texture(77))
    save(root / "masks" / "1.png", square())
    index = build_index(root)
    assert (index.layout, len(index.records)) == ("busi", 6)


def test_links_out_of_the_root_are_refused_but_a_linked_root_is_not(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "data")
    (tmp_path / "link").symlink_to(root)
    assert len(build_index(tmp_path / "link").records) == 8

    outside = make_folders(tmp_path / "outside", domains=("c",))
    (root / "a" / "images" / "secret.png").symlink_to(outside / "c" / "images" / "0.png")
    (root / "b" / "images" / "folder").symlink_to(outside / "c" / "images")
    (root / "d").symlink_to(outside / "c")
    with pytest.raises(DataError) as caught:
        build_index(root)
    for line in ("a/images/secret.png: a link to a file outside", "b/images/folder: a link", "d/images: a link"):
        assert line in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_is_not_utf8_is_a_problem_and_its_message_can_be_printed(tmp_path: Path) -> None:
    make_folders(tmp_path)
    shutil.copy(tmp_path / "a/images/0.png", os.fsencode(tmp_path / "a/images") + b"/caf\xe9.png")
    with pytest.raises(DataError, match="not UTF-8") as caught:
        build_index(tmp_path)
    str(caught.value).encode()


def test_class_numbers_are_checked_against_the_number_of_classes(tmp_path: Path) -> None:
    make_folders(tmp_path, domains=("a",))
    save(tmp_path / "a" / "masks" / "0.png", square() // 255 * np.uint8(2))
    save(tmp_path / "a" / "masks" / "1.png", square() // 255)
    save(tmp_path / "a" / "masks" / "2.png", square() // 255)
    assert len(build_index(tmp_path, classes=3).records) == 4
    save(tmp_path / "a" / "masks" / "1.png", square() // 255 * np.uint8(3))
    with pytest.raises(DataError, match=r"1\.png: holds the values 0, 3"):
        build_index(tmp_path, classes=3)


names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."}
)
numbers = st.integers(0, 999)
slices = st.builds(Frame, st.sampled_from("xyz"), numbers, st.none() | numbers)
frames = slices | st.builds(Frame, st.just("f"), numbers, st.none())
records_of_any_name = st.lists(
    st.builds(
        lambda id, image, masks, domain, width, frame, mm, vote: Record(
            id, image, tuple(masks), domain, "", id, width, 7, None, frame, mm, vote
        ),
        names,
        names,
        st.lists(names, max_size=3),
        names,
        st.integers(1, 9000),
        st.none() | frames,
        st.none() | st.floats(1e-3, 1e3),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda record: record.id,
)


@given(records_of_any_name)
def test_an_index_file_gives_back_what_was_written_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    folder = tmp_path_factory.mktemp("x")
    write_index(Index(folder, "folders", tuple(records)), folder / "index.csv")
    assert read_index(folder / "index.csv", folder).records == tuple(records)


def test_frames_name_the_volume_they_belong_to() -> None:
    of = [Frame.parse(text) for text in ("z1", "z2", "y1", "z1t3", "f1")]
    records = [Record("", "a.nii", (), "", "", "", 1, 1, None, frame) for frame in of]
    assert [str(frame) for frame in of] == ["z1", "z2", "y1", "z1t3", "f1"]
    assert [record.volume for record in records] == ["a.nii:z", "a.nii:z", "a.nii:y", "a.nii:zt3", None]
    for text in ("", "z", "q1", "z-1", "z1t", "f1t2", "z١"):
        with pytest.raises(ValueError, match="are needed"):
            Frame.parse(text)


def _with_columns(text: str, heading: str, cells: str) -> str:
    first, *rest = text.splitlines()
    return "\n".join([f"{first},{heading}", *(f"{line},{cells}" for line in rest)])


def test_an_index_file_can_be_read_by_others(tmp_path: Path) -> None:
    index = build_index(make_busi(tmp_path / "d"))
    write_index(index, tmp_path / "out" / "index.csv")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["index.csv"]
    table = pd.read_csv(tmp_path / "out" / "index.csv")
    assert tuple(table.columns) == COLUMNS
    assert table["id"].tolist() == [record.id for record in index.records]
    assert read_index(tmp_path / "out" / "index.csv", tmp_path / "d") == index


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("group", "set"), r"column\(s\) group are missing"),
        (lambda text: text.replace("40,30", "40,x", 1), "image 1: .*'x'"),
        (lambda text: text.replace("40,30", "0,30", 1), "size above 0"),
        (lambda text: text.replace("40,30", "40", 1), "image 1: .*number of columns"),
        (lambda text: text.replace("a/images/1.png", "../1.png", 1), "image 2: .*below the data set's root"),
        (lambda text: text.replace("a/images/1.png", "/etc/1.png", 1), "image 2: .*below the data set's root"),
        (lambda text: text.replace("a/1,", "a/0,", 1), "stands twice"),
        (lambda text: text.split("\n", maxsplit=1)[0], "no image is listed"),
        (lambda text: _with_columns(text, "frame,slice_mm,vote", "z1x,,"), "image 1: frame 'z1x'"),
        (lambda text: _with_columns(text, "frame,slice_mm,vote", "z1,0,"), "image 1: slice_mm '0'"),
        (lambda text: _with_columns(text, "frame,slice_mm,vote", "z1,1,maybe"), "image 1: vote 'maybe'"),
    ],
)
def test_a_spoilt_index_file_is_refused_with_the_row(tmp_path: Path, change: object, reason: str) -> None:
    root = make_folders(tmp_path / "d")
    path = tmp_path / "index.csv"
    write_index(build_index(root), path)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(DataError, match=reason) as caught:
        read_index(path, root)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_index_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_index(tmp_path / "index.csv", tmp_path)
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_index(tmp_path / "index.csv", tmp_path)


def test_a_full_disk_leaves_the_older_index_and_nothing_else(tmp_path: Path) -> None:
    index = build_index(make_folders(tmp_path / "d"))
    target = tmp_path / "out" / "index.csv"
    write_index(index, target)
    before = target.read_bytes()
    with largest_file(100), pytest.raises(SemidgError, match=r"index\.csv: cannot be written"):
        write_index(index, target)
    assert target.read_bytes() == before
    assert [p.name for p in target.parent.iterdir()] == ["index.csv"]


@pytest.mark.parametrize("path", ["../x.png", "a/../x.png", "/x.png", "", "out/x.png", "nul\0.png"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError):
        resolve_inside(tmp_path / "root", path)
    assert resolve_inside(tmp_path / "root", "a/..x.png") == tmp_path / "root" / "a" / "..x.png"


def test_natural_order() -> None:
    names = ["x10", "x2", "x", "x1a", "y1", "x01"]
    assert sorted(names, key=natural_key) == ["x", "x01", "x1a", "x2", "x10", "y1"]


@pytest.mark.busi
def test_the_real_busi_data(busi_index: Index) -> None:
    index = busi_index
    records = _by_id(index)
    assert len(records) == 647
    assert sum(record.class_name == "benign" for record in index.records) == 437
    assert sum(len(record.masks) > 1 for record in index.records) == 17
    assert all(record.labelled for record in index.records)
    group = {name: records[f"{name.split()[0]}/{name}"].group for name in ("benign (433)", "malignant (145)")}
    assert len(set(group.values())) == 1
    assert records["benign/benign (399)"].group == records["malignant/malignant (93)"].group
    sizes = pd.Series([record.group for record in index.records]).value_counts()
    assert (int(sizes[sizes > 1].sum()), int((sizes > 1).sum()), int(sizes.max())) == (257, 114, 7)
    problems = Problems(index.root)
    assert len(busi.find_records(index.root, problems, include_normal=True)) == 780
    assert not problems
