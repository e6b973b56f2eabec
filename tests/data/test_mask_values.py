"""What the values of mask files mean, where the user says it: from the rules to the index, the masks and the cache."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from semidg.cli import main
from semidg.config_file import parse_config
from semidg.data.dataset import open_cache
from semidg.data.dicom import read_labels
from semidg.data.images import read_mask
from semidg.data.index import build_index, read_index, write_index
from semidg.data.masks import Coding, labels, marks_frame
from semidg.data.reading import record_mask
from semidg.errors import ConfigError, DataError
from semidg.mask_values import parse_mask_values
from semidg.types import IGNORE_INDEX

from .support import save, save_dicom, square, texture

HERE = Path("m.png")
RULE = st.tuples(st.integers(-3, 9), st.integers(0, 3), st.sampled_from([0, 1, 2, IGNORE_INDEX]))


@given(
    arrays(np.int16, (4, 5), elements=st.integers(-4, 12)),
    st.lists(RULE, min_size=1, max_size=4, unique_by=lambda rule: rule[0]),
    st.none() | st.sampled_from([0, 1, IGNORE_INDEX]),
)
def test_the_first_rule_that_fits_a_value_names_its_class(
    values: np.ndarray, rules: list[tuple[int, int, int]], others: int | None
) -> None:
    """Against a slow reading of the same text, value by value."""

    def name(number: int) -> str:
        return "ignore" if number == IGNORE_INDEX else str(number)

    parts = [f"{low}{f'-{low + more}' if more else ''}:{name(number)}" for low, more, number in rules]
    text = ", ".join([*parts, *([] if others is None else [f"*:{name(others)}"])])

    def slow(value: int) -> int | None:
        for low, more, number in rules:
            if low <= value <= low + more:
                return number
        return others

    wanted = [[slow(int(value)) for value in row] for row in values]
    if any(None in row for row in wanted):
        with pytest.raises(DataError, match=r"m\.png: holds the values .* do not name; add them, or \*:0"):
            labels(values, HERE, Coding(3, rules=text))
        return
    found = labels(values, HERE, Coding(3, rules=text))
    assert found.dtype == np.uint8
    assert found.tolist() == wanted


def test_fractions_and_what_is_no_number() -> None:
    values = np.array([0.0, 0.2, 0.5, 1.0])
    assert labels(values, HERE, Coding(2, rules="0-0.49:0,0.49-1:1")).tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match="holds the values nan"):
        labels(np.array([0.0, math.nan]), HERE, Coding(2, rules="0:0,*:1"))
    with pytest.raises(DataError, match=r"make class 2 of some pixels, but the classes are 0 to 1"):
        labels(values, HERE, Coding(2, rules="0:0,*:2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "VALUE:CLASS"),
        ("*:0", "names no value"),
        ("1", "VALUE:CLASS"),
        ("1:2:3", "VALUE:CLASS"),
        ("a:1", "VALUE:CLASS"),
        ("#ff00:1", "VALUE:CLASS"),
        ("1:-1", "VALUE:CLASS"),
        ("1:255", "0 to 254"),
        ("9-3:1", "ends before it begins"),
        ("1:1,1:2", "names a value twice"),
        ("1:1,*:0,*:1", "twice"),
        ("#ff0000:1,0:0", "black is #000000"),
    ],
)
def test_rules_that_say_nothing_clear_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mask_values(text)
    with pytest.raises(ConfigError, match=r"data\.mask_values"):
        parse_config({"data": {"mask_values": text}}, "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"mask_values": "0:0,255:2"}}, r"name class 2, but the classes are 0 to 1; set network\.classes"),
        ({"data": {"mask_values": 15301}}, "in quotes"),  # what YAML makes of 255:1
        ({"data": {"mask_values": "0:0,255:1", "ignore_label": 7}}, "write 7:ignore into data.mask_values"),
        (
            {"data": {"mask_values": "0:0,255:1,7:ignore", "split": {"protocol": "published"}}},
            "published knows no ignored pixels",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changes, "test")


COLOURS = np.array([[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]]], np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_classes(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "m.png", COLOURS, mode)
    assert read_mask([path], Coding(3, rules="#000000:0,#FF0000:2,#00ff00:1")).tolist() == [[0, 2], [1, 2]]
    assert read_mask([path], Coding(2, rules="#00ff00:1,*:0")).tolist() == [[0, 0], [1, 0]]
    with pytest.raises(DataError, match="holds the values #00ff00, which"):
        read_mask([path], Coding(3, rules="#000000:0,#FF0000:2"))
    if mode != "P":  # the numbers of its entries are values
        with pytest.raises(DataError, match=r"in colour; say what its colours mean with data\.mask_values"):
            read_mask([path], Coding(3, rules="0:0,*:1"))


def test_a_mask_of_half_tones_is_cut_where_the_user_says(tmp_path: Path) -> None:
    """Grey values that two classes refuse, in PNG and, without a guess of ours, in JPEG."""
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (16, 1))
    path = save(tmp_path / "m.png", ramp)
    with pytest.raises(DataError, match=r"data\.mask_values, '0-127:0,128-255:1' say"):
        read_mask([path])
    np.testing.assert_array_equal(read_mask([path], Coding(rules="0-127:0,128-255:1")), ramp >= 128)
    jpeg = save(tmp_path / "m.jpg", ramp)
    stored = np.asarray(Image.open(jpeg))
    np.testing.assert_array_equal(read_mask([jpeg], Coding(rules="0-199:0,200-255:1")), stored >= 200)


def test_dicom_masks_in_colour(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "m.dcm", np.kron(COLOURS, np.ones((8, 8, 1), np.uint8)), "RGB")
    found = read_labels(path, Coding(3, rules="#000000:0,#ff0000:2,#00ff00:1"))[0]
    np.testing.assert_array_equal(found, np.kron([[0, 2], [1, 2]], np.ones((8, 8), np.uint8)))
    with pytest.raises(DataError, match="say what its colours mean"):
        read_labels(path, Coding(3))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images and a volume whose masks hold 0, 128 and 255: disc, cup and what is outside, as public sets have."""
    stored = np.array([255, 128, 0], np.uint8)
    for k in range(2):
        save(tmp_path / "d/a/images" / f"{k}.png", texture(k, width=39))
        save(tmp_path / "d/a/masks" / f"{k}.png", np.kron(stored, np.ones((30, 13), np.uint8)))
    voxels = np.random.default_rng(0).integers(0, 255, (12, 10, 4))
    for part, values in (("images", voxels), ("masks", stored[voxels // 90])):
        (tmp_path / "d/b" / part).mkdir(parents=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1, 1, 4, 1])), tmp_path / "d/b" / part / "v.nii.gz")
    return tmp_path / "d"


def test_the_rules_are_in_the_index_and_the_masks_of_every_format_obey_them(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"say what they mean with data\.mask_values"):
        build_index(root, classes=3)
    index = build_index(root, classes=3, mask_values="0:2,128:1,255:0")
    assert {r.mask_values for r in index.records} == {"0:2,128:1,255:0"}
    write_index(index, tmp_path / "index.csv")
    assert read_index(tmp_path / "index.csv", root).records == index.records
    plain = [replace(record, mask_values="") for record in index.records]
    write_index(replace(index, records=tuple(plain)), tmp_path / "plain.csv")
    assert "mask_values" not in (tmp_path / "plain.csv").read_text("utf-8").splitlines()[0]
    for record in index.records:
        mask = record_mask(root, record, 3)
        if record.frame is None:
            stored = np.asarray(Image.open(root / record.masks[0]))
        else:
            stored = np.asarray(nib.load(root / record.masks[0]).dataobj)[..., record.frame.number].T
        np.testing.assert_array_equal(mask, np.select([stored == 255, stored == 128], [0, 1], 2))
    # the index as a table beside the data, which says it by itself
    write_index(index, root / "table.csv")
    assert [r.mask_values for r in build_index(root / "table.csv", classes=3).records] == ["0:2,128:1,255:0"] * 6


def test_the_cache_belongs_to_the_rules(root: Path, tmp_path: Path) -> None:
    def masks(rules: str) -> np.ndarray:
        records = [r for r in build_index(root, classes=3, mask_values=rules).records if r.frame is None]
        return open_cache(root, records, 16, 1, 3, folder=tmp_path / "cache").masks[0]

    first, second = masks("0:2,128:1,255:0"), masks("0:0,128:ignore,255:1")
    np.testing.assert_array_equal(second, np.select([first == 2, first == 1], [0, IGNORE_INDEX], 1))


def test_a_table_may_say_it_line_by_line(root: Path) -> None:
    lines = [
        "image,mask,mask_values",
        '"a/images/0.png","a/masks/0.png","0:2,128:1,255:0"',
        '"a/images/1.png","a/masks/1.png","0-254:1,255:0"',
    ]
    (root / "t.csv").write_text("\n".join(lines))
    records = build_index(root / "t.csv", classes=3).records
    assert [np.unique(record_mask(root, record, 3)).tolist() for record in records] == [[0, 1, 2], [0, 1]]
    lines[2] = lines[2].replace("0-254:1", "0~254:1")
    (root / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"t\.csv, line 3: '0~254:1' in "):
        build_index(root / "t.csv", classes=3)
    lines[0], lines[2] = "image,mask,mask_values,ignore", lines[1] + ",9"
    lines[1] = lines[1] + ","
    (root / "t.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="write 9:ignore into mask_values"):
        build_index(root / "t.csv", classes=3)


def test_rules_for_all_stand_above_a_table_and_those_of_a_table_above_a_value_to_ignore(
    root: Path, tmp_path: Path
) -> None:
    """A record has rules or a value to ignore, and its index is read back."""
    second = 'a/images/1.png,a/masks/1.png,,"255:0,*:1"'
    for first, asked, expected in (
        ("a/images/0.png,a/masks/0.png,7,", {"mask_values": "*:2,0:1"}, [(None, "*:2,0:1")] * 2),
        ("a/images/0.png,,,", {"ignore_label": 9}, [(9, ""), (None, "255:0,*:1")]),
    ):
        (root / "t.csv").write_text("\n".join(["image,mask,ignore,mask_values", first, second]))
        index = build_index(root / "t.csv", classes=3, **asked)
        assert [(r.ignore, r.mask_values) for r in index.records] == expected
        write_index(index, tmp_path / "index.csv")
        assert read_index(tmp_path / "index.csv", root).records == index.records


def test_masks_that_look_inverted_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Silent otherwise: the network would learn the background."""
    for k in range(3):
        save(tmp_path / "d/images" / f"{k}.png", texture(k))
        save(tmp_path / "d/masks" / f"{k}.png", 255 - square(at=5 + k))
    asked = ["index", str(tmp_path / "d"), "--out", str(tmp_path / "i.csv")]
    assert main(asked) == 0
    assert "3 of 3 masks mark the edge of the image" in capsys.readouterr().out
    assert main([*asked, "--mask-values", "0:1,*:0"]) == 0
    assert "edge" not in capsys.readouterr().out


def test_the_edge_of_a_mask() -> None:
    assert not marks_frame(square() // 255)
    assert marks_frame(1 - square() // 255)
    assert not marks_frame(np.full((3, 3), IGNORE_INDEX, np.uint8))
    assert marks_frame(np.array([[IGNORE_INDEX, 2], [1, 1]], np.uint8))
    half = np.zeros((30, 40), np.uint8)
    half[:, :20] = 1
    assert not marks_frame(half)
    assert marks_frame(np.ones((1, 1), np.uint8))
