"""A table of the user's as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semidg.data.csv_layout import join_masks, split_masks
from semidg.data.index import build_index, read_index, write_index
from semidg.data.reading import record_mask
from semidg.errors import DataError
from semidg.types import Frame

from .support import make_folders, save, save_nifti, save_series, square, texture


def _table(root: Path, text: str, images: int = 4) -> Path:
    for i in range(images):
        save(root / "scans" / f"{i}.png", texture(i))
        save(root / "scans" / f"{i}_m.png", square(at=5 + i))
    path = root / "my images.csv"
    path.write_text(text, "utf-8")
    return path


def test_the_image_column_is_enough(tmp_path: Path) -> None:
    index = build_index(_table(tmp_path, "image\nscans/0.png\n\nscans/1.png\n"))
    assert (index.layout, index.root) == ("csv", tmp_path)
    assert [(r.id, r.masks, r.domain, r.class_name, r.group, r.width) for r in index.records] == [
        ("scans/0", (), "my images", "", "scans/0", 40),
        ("scans/1", (), "my images", "", "scans/1", 40),
    ]


def test_every_column_is_taken_and_others_are_passed_over(tmp_path: Path) -> None:
    path = _table(
        tmp_path,
        "\ufeffid,image,mask,domain,class,group,row_mm,column_mm,age\r\n"
        "a,scans/0.png,scans/0_m.png;scans/1_m.png,Köln,benign,p1,0.1,0.2,70\r\n"
        "b,scans/1.png,,Köln,malignant,p1,,,\r\n"
        'c,scans/2.png,scans/2_m.png,"Ulm, 2",benign,,,,\r\n',
    )
    index = build_index(path)
    a, b, c = index.records
    assert (a.id, a.masks, a.domain, a.class_name, a.spacing) == (
        "a",
        ("scans/0_m.png", "scans/1_m.png"),
        "Köln",
        "benign",
        (0.1, 0.2),
    )
    assert (b.labelled, b.group, b.spacing) == (False, "a", None)
    assert (c.domain, c.group) == ("Ulm, 2", "c")
    write_index(index, tmp_path / "out" / "index.csv")
    assert read_index(tmp_path / "out" / "index.csv", path).records == index.records


def test_an_index_is_such_a_table(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "d")
    (root / "spacing.csv").write_text("image,row_mm,column_mm\na,0.1,0.2\n")
    index = build_index(root)
    write_index(index, root / "index.csv")
    assert build_index(root / "index.csv").records == index.records


def test_all_that_is_wrong_is_listed_with_its_lines(tmp_path: Path) -> None:
    lines = (
        "image,mask,id,domain,row_mm,column_mm,vote",
        "scans/0.png,,a,d,,,",
        "scans/9.png,,b,d,,,",
        "scans/1.png,scans/8_m.png,c,d,,,",
        "scans/0.png,,e,d,,,",
        "scans/2.png,,a,d,,,",
        "../x.png,,f,d,,,",
        "/etc/passwd,,g,d,,,",
        "scans/3.png,,h,,,,",
        "scans/3.png,,h,d,0,1,",
        "scans/3.png,,h,d,,1,",
        "scans/3.png,,h,d,,,maybe",
        ",,i,d,,,",
        "scans\\3.png,,j,d,,,",
        "scans/3.png",
        "s\0.png,,k,d,,,",
        f"{'x' * 300}.png,,l,d,,,",
    )
    path = _table(tmp_path, "\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        build_index(path)
    text = str(caught.value)
    for line, reason in {
        3: "scans/9.png: there is no such file",
        4: "scans/8_m.png: there is no such file",
        5: "the image scans/0.png already stands in line 2",
        6: "the id 'a' already stands in line 2",
        7: "../x.png: must be a path below",
        8: "/etc/passwd: must be a path below",
        9: "no domain, where other lines have one",
        10: "spacing '0' x '1'",
        11: "spacing '' x '1'",
        12: "vote 'maybe'",
        13: "an empty path: must be",
        14: r"scans\3.png: there is no such file; write its folders with /",
        15: "1 cells, the heading has 7",
        16: "s\\x00.png: ",
        17: f"{'x' * 300}.png: not a usable path",
    }.items():
        assert f"line {line}: {reason}" in text
    assert "15 problem(s)" in text
    assert len(build_index(path, skip_bad=True).records) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (
            "image\nC:\\scans\\0.png\n",
            r"0\.png: there is no such file; write it relative to the folder of the table, with /",
        ),
        ("picture,mask\n", "no column image"),
        ("image,Mask\nscans/0.png,\n", r"column 'Mask': is 'mask' meant\?"),
        ("image,image\nscans/0.png,\n", "column image twice"),
        ("image;mask\nscans/0.png;\n", "commas, not by ';'"),
        ("image\tmask\nscans/0.png\t\n", r"commas, not by '\\t'"),
        ("image,mask,masks\nscans/0.png,scans/0_m.png,scans/0_m.png\n", "keep one of the two"),
        ("image\n", "no image is listed"),
        ('image\n"scans/0.png\n', "not a CSV file"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        build_index(_table(tmp_path, text))
    assert "my images.csv" in str(caught.value)


def test_bytes_that_are_no_text_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = _table(tmp_path, "image\nscans/0.png\n")
    path.write_bytes(b"image\n\xff\xfe.png\n")
    with pytest.raises(DataError, match="UTF-8"):
        build_index(path)
    (tmp_path / "dir.csv").mkdir()
    with pytest.raises(DataError, match=r"layout csv data.root is a file NAME.csv"):
        build_index(tmp_path / "dir.csv", layout="csv")
    with pytest.raises(DataError, match="is not a folder"):
        build_index(tmp_path / "scans" / "0.png")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = _table(tmp_path / "in", "image\nscans/link.png\n")
    (tmp_path / "in" / "scans" / "link.png").symlink_to(save(tmp_path / "out.png", texture(1)))
    with pytest.raises(DataError, match=r"line 2: scans/link.png: leaves"):
        build_index(path)


def test_a_volume_is_all_of_its_slices_or_the_one_that_is_named(tmp_path: Path) -> None:
    voxels = np.stack([texture(i, 8, 10) for i in range(5)], axis=2)
    save_nifti(tmp_path / "v.nii.gz", voxels, (0.5, 0.7, 4))
    save_nifti(tmp_path / "m.nii.gz", (voxels > 100).astype("uint8"), (0.5, 0.7, 4))
    (tmp_path / "t.csv").write_text("image,mask\nv.nii.gz,m.nii.gz\n")
    whole = build_index(tmp_path / "t.csv").records
    assert [str(r.frame) for r in whole] == [f"z{i}" for i in range(5)]
    assert {r.group for r in whole} == {whole[0].id}
    (tmp_path / "t.csv").write_text("image,mask,frame\nv.nii.gz,m.nii.gz,z3\nv.nii.gz,m.nii.gz,z1\n")
    three, one = build_index(tmp_path / "t.csv").records
    assert (three.frame, one.frame) == (Frame("z", 3), Frame("z", 1))
    assert three.group == one.group == "v/z3"
    assert (three.spacing, three.slice_mm) == (whole[3].spacing, whole[3].slice_mm)
    (tmp_path / "t.csv").write_text("image,mask,frame\nv.nii.gz,m.nii.gz,z9\n")
    with pytest.raises(DataError, match="z9"):
        build_index(tmp_path / "t.csv")


@given(st.lists(st.text(min_size=1), max_size=4))
def test_mask_cells_are_read_as_they_were_written(masks: list[str]) -> None:
    assert split_masks(join_masks(tuple(masks))) == tuple(masks)


def test_the_distance_of_planes_in_a_table_wins_over_that_of_the_file(tmp_path: Path) -> None:
    save_nifti(tmp_path / "v.nii.gz", np.stack([texture(k) for k in range(3)], -1), (0.5, 0.5, 3))
    save_series(tmp_path / "s", np.stack([texture(10 + k) for k in range(3)]), ImagePositionPatient=None)
    lines = ["v.nii.gz,8", *(f"s/{k}.dcm,4" for k in (1, 2, 3))]
    (tmp_path / "t.csv").write_text("image,slice_mm\n" + "\n".join(lines) + "\n")
    assert {r.image[0]: r.slice_mm for r in build_index(tmp_path / "t.csv").records} == {"v": 8, "s": 4}


def test_a_volume_stands_whole_or_by_planes(tmp_path: Path) -> None:
    save_nifti(tmp_path / "v.nii.gz", np.stack([texture(k) for k in range(12)], -1), (0.5, 0.5, 3))
    for lines in ("v.nii.gz,\nv.nii.gz,z1\n", "v.nii.gz,z1\nv.nii.gz,\n"):
        (tmp_path / "t.csv").write_text("image,frame\n" + lines)
        with pytest.raises(DataError, match=r"v\.nii\.gz stands whole and with a frame, here and in line 2"):
            build_index(tmp_path / "t.csv")


def test_an_index_keeps_the_value_of_unknown_pixels_as_a_table(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[:10] = 9
    save(tmp_path / "d" / "a" / "images" / "1.png", texture(1))
    save(tmp_path / "d" / "a" / "masks" / "1.png", mask)
    index = build_index(tmp_path / "d", ignore_label=9)
    write_index(index, tmp_path / "d" / "index.csv")
    again = build_index(tmp_path / "d" / "index.csv")
    assert again.records[0].ignore == 9
    assert (record_mask(tmp_path / "d", again.records[0]) == record_mask(index.root, index.records[0])).all()
    (tmp_path / "d" / "t.csv").write_text("image,mask,ignore\na/images/1.png,a/masks/1.png,-9\n")
    with pytest.raises(DataError, match="ignore '-9': a number of 0 or more"):
        build_index(tmp_path / "d" / "t.csv")
