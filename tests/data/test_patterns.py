"""Data sets in no layout: patterns of images and masks, and the guess at them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.support import save, square, texture
from semidg.config_file import parse_config
from semidg.data.index import build_index, read_index, write_index
from semidg.data.patterns import Pattern
from semidg.data.suggest import suggest_patterns
from semidg.errors import ConfigError, DataError
from semidg.types import Record

#: How public data sets name their files: image -> its masks.
LAID_OUT: dict[str, dict[str, tuple[str, ...]]] = {
    "two folders": {f"original/{n:06d}.png": (f"GT/{n:06d}.png",) for n in range(1, 5)},
    "prefixes": {
        f"Images/bus_{n:04d}-{side}.png": (f"Masks/mask_{n:04d}-{side}.png",) for n, side in enumerate("lrls", 1)
    },
    "one folder": {f"case{n:03d}.png": (f"case{n:03d}_tumor.png",) for n in range(1, 5)},
    "several masks": {
        f"all/{n}.png": (f"all/{n}_mask.png", *([f"all/{n}_mask_1.png"] if n % 2 else [])) for n in range(4)
    },
    "other endings": {f"img/{n}.JPG": (f"labels/{n}_gt.png",) for n in range(4)},
    "domains": {f"{site}/img/{n}.png": (f"{site}/seg/{n}.png",) for site in ("north", "east") for n in range(2)},
}


def lay_out(root: Path, files: Mapping[str, tuple[str, ...]]) -> Path:
    """Images and masks at these paths."""
    for number, (image, masks) in enumerate(files.items()):
        save(root / image, texture(number))
        for at, mask in enumerate(masks):
            save(root / mask, square(at=5 + at))
    return root


def by_image(records: tuple[Record, ...]) -> dict[str, tuple[str, ...]]:
    """Image -> its masks, as they were found."""
    return {record.image: record.masks for record in records}


@pytest.mark.parametrize("name", LAID_OUT)
def test_what_is_guessed_of_a_public_data_set_finds_each_mask(tmp_path: Path, name: str) -> None:
    root = lay_out(tmp_path / "set", LAID_OUT[name])
    with pytest.raises(DataError, match="its files look like --images") as caught:
        build_index(root)
    guess = suggest_patterns(root)
    assert guess is not None
    assert f"--images '{guess[0]}' --masks '{guess[1]}'" in str(caught.value)
    index = build_index(root, images=guess[0], masks=guess[1])
    assert by_image(index.records) == LAID_OUT[name]
    assert index.layout == "patterns"
    expected = {"north", "east"} if name == "domains" else {"set"}
    assert {record.domain for record in index.records} == expected


@pytest.mark.parametrize(
    ("images", "masks", "files"),
    [
        ("*.png", "m/*.png", {"a.png": ("m/a.png",), "b.png": ()}),
        ("**/x-*", "**/y-*", {"x-1.png": ("y-1.png",), "p/q/x-1.png": ("p/q/y-1.png",)}),
        ("img/p??", "seg/p??_*", {"img/p01.png": ("seg/p01_a.png", "seg/p01_b.png"), "img/p02.png": ()}),
        ("[ab]*", "[ab]*_m", {"a1.png": ("a1_m.png",), "b1.png": ("b1_m.png",)}),
        ("[!m]*.png", "m[!m]*.png", {"1a.png": ("m1a.png",)}),
        ("./i/*.*", "s/*.*", {"i/a.b.jpg": ("s/a.b.png",)}),
        ("{domain}/{class}/i/*", "{domain}/{class}/m/*", {"n/bad/i/1.png": ("n/bad/m/1.png",)}),
        ("i/{class}-*", "m/*-{class}", {"i/bad-1.png": ("m/1-bad.png",), "i/good-1.png": ("m/1-good.png",)}),
        ("{domain}_*", "m/{domain}_*", {"siteA_p1_1.png": ("m/siteA_p1_1.png",), "siteB_p1_1.png": ()}),
        ("i/case*", "m/case*_*", {"i/case1.png": ("m/case1_tumor_2.png",), "i/case2.png": ()}),
        ("i/case*", "m/case*_*", {"i/case1_a.png": ("m/case1_a_b.png",), "i/case2.png": ()}),
        ("a(1)+/*", "a(1)+ mask/*", {"a(1)+/ü 1.png": ("a(1)+ mask/ü 1.png",)}),
    ],
)
def test_a_mask_is_where_its_wildcards_stand_for_the_same(
    tmp_path: Path, images: str, masks: str, files: dict[str, tuple[str, ...]]
) -> None:
    root = lay_out(tmp_path, files)
    found = build_index(root, images=images, masks=masks).records
    assert by_image(found) == files
    if "{class}" in images:
        assert {record.class_name for record in found} <= {"bad", "good"}
    if "{domain}" in images:
        assert {record.domain for record in found} <= {"n", "siteA", "siteB"}


def test_without_masks_all_are_unlabelled_and_other_files_are_passed_over(tmp_path: Path) -> None:
    lay_out(tmp_path / "set", LAID_OUT["two folders"])
    (tmp_path / "set" / "GT" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set" / "original" / "notes.txt").write_text("no image")
    found = build_index(tmp_path / "set", images="original/*").records
    assert by_image(found) == dict.fromkeys(LAID_OUT["two folders"], ())
    with pytest.raises(DataError, match=r"GT/gone\.png: a broken link"):
        build_index(tmp_path / "set", images="original/*", masks="GT/*")


def test_of_many_problems_of_a_kind_some_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    for n in range(25):
        save(tmp_path / f"{n}.png", texture(n))
        save(tmp_path / f"{n}_mask.png", square())
    save(tmp_path / "x.png", texture(99))
    with pytest.raises(DataError) as caught:
        build_index(tmp_path, images="x*", masks="*_mask")
    text = str(caught.value)
    assert "25 problem(s)" in text
    assert "  19_mask.png\n  and 5 more; semidg index --skip-bad lists all" in text
    skipped = build_index(tmp_path, images="x*", masks="*_mask", skip_bad=True).skipped
    assert len(skipped) == 25


def test_the_spacing_and_the_patients_of_a_data_set_with_patterns(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "set", LAID_OUT["two folders"])
    (root / "spacing.csv").write_text("image,row_mm,column_mm\nset,0.1,0.2\n")
    (root / "groups.csv").write_text("image,group\noriginal/000001.png,p\noriginal/000002.png,p\n")
    found = build_index(root, images="original/*", masks="GT/*").records
    assert {record.spacing for record in found} == {(0.1, 0.2)}
    assert len({record.group for record in found}) == 3


@pytest.mark.parametrize(
    ("images", "masks", "reason"),
    [
        ("orig/*", None, "there is no such folder"),
        ("original/x*", None, r"no file fits 'original/x\*'; image files there are original/000001\.png"),
        ("original/*", "GT/x*", r"no file fits 'GT/x\*'"),
        ("original/00000[1-3]", "GT/00000[1-4]", r"mask without image \(1;.*\n  GT/000004\.png"),
        ("original/*", "GT/000001", r"1 wildcard\(s\) and 'GT/000001' 0"),
        ("original/{domain}", "GT/*", r"must stand in both or in none"),
        ("../*", None, "below the root"),
        ("/original/*", None, "below the root"),
        ("", None, "below the root"),
        ("[9-0]*", None, "not a usable pattern"),
        ("original/{id}", None, r"\{id\} is unknown; \{domain\} and \{class\}"),
        ("*_*_*_*_*_*_*", None, "7 wildcards; at most 6"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(tmp_path: Path, images: str, masks: str | None, reason: str) -> None:
    root = lay_out(tmp_path, LAID_OUT["two folders"])
    with pytest.raises(DataError, match=reason):
        build_index(root, images=images, masks=masks)


def test_two_images_of_one_name_and_a_root_that_is_no_folder(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"i/1.png": (), "i/1.jpg": ()})
    with pytest.raises(DataError, match=r"not unique .*\n  i/1\.jpg and i/1\.png"):
        build_index(root, images="i/*")
    with pytest.raises(DataError, match=r"is no folder; with data\.images"):
        build_index(root / "i" / "1.png", images="i/*")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"masks": "m/*"}, "data.masks needs data.images"),
        ({"images": "i/*", "root": "a", "more_roots": ["b"]}, "write a table into each"),
    ],
)
def test_patterns_with_other_keys_that_contradict_them(data: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_config({"data": data}, "file")
    assert "got" not in str(caught.value)  # the whole section would follow


@given(st.text("ab*?1-", min_size=1, max_size=8).filter(lambda text: "**" not in text), st.text("ab1-.", max_size=8))
def test_wildcards_are_those_of_a_shell(pattern: str, name: str) -> None:
    found = Pattern(f"d/{pattern}.png").match(f"d/{name}.png")
    assert (found is not None) == fnmatch.fnmatchcase(name, pattern)
    if found is not None:  # what they stand for puts the name together again
        parts = iter(found.wildcards)
        assert "".join(next(parts) if letter in "*?" else letter for letter in pattern) == name


@pytest.mark.parametrize(
    "files",
    [
        {"a.png": (), "b.png": ()},  # no mask at all
        {"a/1.png": (), "b/7.png": ()},
        {"scans/1.png": ("masks/9.png",), "scans/2.png": ("masks/8.png",)},  # names that do not belong together
    ],
)
def test_without_an_idea_nothing_is_guessed(tmp_path: Path, files: dict[str, tuple[str, ...]]) -> None:
    root = lay_out(tmp_path / "set", files)
    assert suggest_patterns(root) is None
    with pytest.raises(DataError, match=r"no image found; expected .*--data\.images PATTERN"):
        build_index(root)


def test_a_linked_folder_is_refused_and_never_passed_over(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "set", {f"{site}/img/{n}.png": (f"{site}/seg/{n}.png",) for site in "ab" for n in "12"})
    (root / "b" / "seg").rename(tmp_path / "store")
    (root / "b" / "seg").symlink_to(tmp_path / "store")
    with pytest.raises(DataError, match=r"b/seg: a link to a folder"):
        build_index(root, images="{domain}/img/*", masks="{domain}/seg/*")
    (root / "c").symlink_to(tmp_path / "store")
    with pytest.raises(DataError, match=r"c: a link to a folder"):
        build_index(root, images="{domain}/img/*")
    (root / "linked").symlink_to(root / "a" / "img")
    with pytest.raises(DataError, match=r"linked: a link to a folder"):
        build_index(root, images="linked/*")


def test_two_masks_of_one_name_are_refused_where_one_is_meant(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"img/1.png": ("GT/1.png", "GT/1.bmp")})
    with pytest.raises(DataError, match=r"not unique .*\n  GT/1\.bmp and GT/1\.png"):
        build_index(root, images="img/*", masks="GT/*")
    assert len(build_index(root, images="img/?", masks="GT/?*").records[0].masks) == 2  # several are meant


def test_a_negated_class_stays_within_a_name() -> None:
    assert Pattern("img[!_]*").match("img/2.png") is None
    assert Pattern("img[^_]*").match("imgx2.png") is not None
    assert Pattern("a[[]1]/*").match("a[1]/x.png") is not None


def test_a_guess_of_one_folder_takes_no_other_mask_for_an_image(tmp_path: Path) -> None:
    files = {f"case{n:03d}.png": (f"case{n:03d}_tumor.png",) for n in range(1, 5)}
    root = lay_out(tmp_path, files | {"case002_other1.png": ()})
    guess = suggest_patterns(root)
    assert guess == ("case???", "case???_tumor*")
    assert by_image(build_index(root, images=guess[0], masks=guess[1]).records) == files


@pytest.mark.parametrize("folders", [("img", "masks_A", "masks_B"), ("a_img", "a_mask", "b_img", "b_mask")])
def test_a_guess_puts_domain_only_where_image_and_mask_share_the_folder(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    for folder in folders:
        for n in range(3):
            save(tmp_path / folder / f"{n}.png", square(at=2 + n) if "mask" in folder else texture(n + 9 * len(folder)))
    guess = suggest_patterns(tmp_path)
    assert guess is not None
    assert guess[0].partition("/")[0] in folders
    assert all(record.masks for record in build_index(tmp_path, images=guess[0], masks=guess[1]).records)


def test_nothing_is_guessed_of_unlabelled_images(tmp_path: Path) -> None:
    lay_out(tmp_path, {f"{folder}/{n}.png": () for folder in ("scans", "unlabelled") for n in range(3)})
    assert suggest_patterns(tmp_path) is None


def test_an_index_of_many_folders_is_read_again_without_a_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = lay_out(tmp_path / "set", LAID_OUT["two folders"])
    index = build_index(root, images="original/*", masks="GT/*")
    write_index(index, tmp_path / "index.csv")
    monkeypatch.setattr("semidg.data.layouts.suggest_patterns", lambda _: pytest.fail("guessed"))
    assert read_index(tmp_path / "index.csv", root).records == index.records


def test_a_data_set_one_folder_below_is_named(tmp_path: Path) -> None:
    files = {f"inner/north/images/{n}.png": (f"inner/north/masks/{n}.png",) for n in range(2)}
    root = lay_out(tmp_path / "set", files)
    with pytest.raises(DataError, match=r"no image found here, but a data set in inner/; give .*/set/inner"):
        build_index(root)


def test_a_mask_that_may_be_of_two_images_is_refused(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"i/case1.png": ("m/case1_a_b.png",), "i/case1_a.png": ()})
    with pytest.raises(DataError, match=r"m/case1_a_b\.png may be the mask of i/case1_a\.png and of i/case1\.png"):
        build_index(root, images="i/case*", masks="m/case*_*")


def test_an_umlaut_in_one_or_two_characters_is_the_same(tmp_path: Path) -> None:
    one, two = "m\u00fcller", "mu\u0308ller"
    root = lay_out(tmp_path, {f"img/{two}.png": (f"GT/{one}.png",)})
    assert by_image(build_index(root, images="img/*", masks="GT/*").records) == {f"img/{two}.png": (f"GT/{one}.png",)}
    assert len(build_index(root, images=f"img/{one[:2]}*", masks=f"GT/{two[:3]}*").records) == 1


def test_folders_that_no_pattern_reaches_are_not_looked_into(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "set", LAID_OUT["one folder"])
    (root / "elsewhere").symlink_to(tmp_path)  # would be refused where files in it might fit
    assert by_image(build_index(root, images="case???", masks="case???_tumor").records) == LAID_OUT["one folder"]
    with pytest.raises(DataError, match="elsewhere: a link to a folder"):
        build_index(root, images="**/case???", masks="**/case???_tumor")


def test_masks_in_a_folder_each_are_told_apart_by_their_placeholder(tmp_path: Path) -> None:
    """Left and right lungs, as one public set has them; without the placeholder two masks of one name are refused."""
    files = {f"png/{n}.png": (f"masks/left/{n}.png", f"masks/right/{n}.png") for n in range(3)}
    root = lay_out(tmp_path / "set", files)
    assert by_image(build_index(root, images="png/*", masks="masks/{mask}/*").records) == files
    assert by_image(build_index(root, images="png/*", masks="masks/{mask}t/*").records) == files
    with pytest.raises(DataError, match="mask without image"):
        build_index(root, images="png/*", masks="masks/*/*")
    with pytest.raises(DataError, match="is for their pattern"):
        build_index(root, images="{mask}/*", masks="masks/*")
    with pytest.raises(DataError, match=r"\{rater\} is unknown; .*\{mask\} in that of the masks"):
        build_index(root, images="png/*", masks="masks/{rater}/*")
