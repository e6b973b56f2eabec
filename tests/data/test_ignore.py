"""Pixels of a value that means "not known", from the files to the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from semidg.config_file import parse_config
from semidg.data.dataset import open_cache
from semidg.data.index import build_index, read_index, write_index
from semidg.data.masks import Coding, labels, majority, unite
from semidg.data.reading import record_mask
from semidg.errors import ConfigError, DataError
from semidg.types import IGNORE_INDEX

from .support import save, texture

HERE = Path("m.png")
VALUES = np.array([[0, 1, 2], [7, 2, 7]], np.uint8)


@given(arrays(np.int16, (4, 5), elements=st.sampled_from([0, 1, 2, 3, 9])), st.sampled_from([9, -1, 300]))
def test_only_pixels_of_the_value_are_ignored(values: np.ndarray, ignore: int) -> None:
    if ignore != 9 and (values == 9).any():
        with pytest.raises(DataError, match="holds the values"):
            labels(values, HERE, Coding(4, ignore))
        return
    found = labels(values, HERE, Coding(4, ignore))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found == IGNORE_INDEX, values == ignore)
    np.testing.assert_array_equal(found[values != ignore], values[values != ignore])


@pytest.mark.parametrize(("foreground", "ignore"), [(255, 128), (1, 255), (128, 255), (3, 1)])
def test_two_classes_keep_their_rule_beside_the_ignored_value(foreground: int, ignore: int) -> None:
    values = np.array([0, foreground, ignore, foreground], np.uint8)
    assert labels(values, HERE, Coding(2, ignore)).tolist() == [0, 1, IGNORE_INDEX, 1]
    with pytest.raises(DataError, match="grey values"):
        labels(values, HERE, Coding())
    assert labels(np.full(3, ignore, np.uint8), HERE, Coding(2, ignore)).tolist() == [IGNORE_INDEX] * 3


def test_a_union_ignores_what_one_file_ignores_and_a_vote_what_all_ignore() -> None:
    a, b = np.array([[0, 1, 255, 255, 1]], np.uint8), np.array([[2, 0, 2, 255, 255]], np.uint8)
    assert unite([a, b], [HERE, HERE]).tolist() == [[2, 1, 255, 255, 255]]
    assert majority([a, b, b], [HERE] * 3, 3).tolist() == [[2, 0, 2, 255, 1]]
    with pytest.raises(DataError, match="another class"):
        unite([a, np.full_like(a, 2)], [HERE, HERE])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images and a volume with masks of three classes in which 7 is not known."""
    for k in range(2):
        save(tmp_path / "a/images" / f"{k}.png", texture(k))
        mask = np.zeros((30, 40), np.uint8)
        mask[:, :39] = np.kron(VALUES, np.ones((15, 13), np.uint8))
        save(tmp_path / "a/masks" / f"{k}.png", mask)
    voxels = np.random.default_rng(0).integers(0, 255, (12, 10, 4))
    for part, values in (("images", voxels), ("masks", np.where(voxels >= 240, 7, voxels // 80))):
        (tmp_path / "b" / part).mkdir(parents=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([1, 1, 4, 1])), tmp_path / "b" / part / "v.nii.gz")
    return tmp_path


def test_the_label_is_in_the_index_and_the_masks_of_every_format_obey_it(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds the values 0, 1, 2, 7"):
        build_index(root, classes=3)
    index = build_index(root, classes=3, ignore_label=7)
    assert {r.ignore for r in index.records} == {7}
    write_index(index, tmp_path / "index.csv")
    assert read_index(tmp_path / "index.csv", root).records == index.records
    plain = [replace(record, ignore=None) for record in index.records]
    write_index(replace(index, records=tuple(plain)), tmp_path / "plain.csv")
    assert "ignore" not in (tmp_path / "plain.csv").read_text("utf-8").splitlines()[0]
    for record in index.records:
        mask = record_mask(root, record, 3)
        assert set(np.unique(mask)) == {0, 1, 2, IGNORE_INDEX}
        if record.frame is None:
            stored = np.asarray(Image.open(root / record.masks[0]))
        else:
            stored = np.asarray(nib.load(root / record.masks[0]).dataobj)[..., record.frame.number]
        assert (mask == IGNORE_INDEX).sum() == (stored == 7).sum()


def test_the_cache_holds_ignored_pixels_and_belongs_to_the_label(root: Path, tmp_path: Path) -> None:
    records = [r for r in build_index(root, classes=3, ignore_label=7).records if r.frame is None]
    cache = open_cache(root, records, 16, 1, 3, folder=tmp_path / "cache")
    assert set(np.unique(cache.masks)) == {0, 1, 2, IGNORE_INDEX}
    with pytest.raises(DataError, match="holds the values"):  # another cache, made anew
        open_cache(root, [replace(r, ignore=9) for r in records], 16, 1, 3, folder=tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"ignore_label": 2}, "network": {"classes": 3}}, "ignore_label 2 is the number of a class"),
        ({"data": {"ignore_label": 0}}, "ignore_label 0 is the number of a class"),
        ({"data": {"ignore_label": 255, "split": {"protocol": "published"}}}, "published knows no ignored pixels"),
        ({"network": {"classes": 3, "class_names": ["a", "b"]}}, "2 names for 3 classes"),
        ({"network": {"class_names": ["a", "a"]}}, "no other class has"),
        ({"network": {"class_names": ["a", "b\n"]}}, "printable"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changes, "test")


def test_names_of_classes() -> None:
    def names(**network: object) -> tuple[str, ...]:
        return parse_config({"network": network}, "test").network.names

    assert names() == ("background", "lesion")
    assert names(classes=3) == ("background", "class 1", "class 2")
    assert names(classes=3, class_names=["air", "liver", "tumour"]) == ("air", "liver", "tumour")
    assert parse_config({"data": {"ignore_label": 1}}, "test").data.ignore_label == 1  # a mask of 0 and 255 beside it
