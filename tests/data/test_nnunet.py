"""The nnU-Net raw layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semidg.data.index import build_index
from semidg.errors import DataError

from .support import save, save_nifti, square, texture

LESION = {"background": 0, "lesion": 1}


def _dataset(root: Path, **values: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    described = {"channel_names": {"0": "US"}, "labels": LESION, "numTraining": 2, "file_ending": ".png"} | values
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
    return root


def _flat(root: Path, **values: Any) -> Path:
    """2D: two cases with a label, one without, and one in imagesTs."""
    for i, case in enumerate(("US_002", "US_010", "US_011")):
        save(root / "imagesTr" / f"{case}_0000.png", texture(i))
        if i < 2:
            save(root / "labelsTr" / f"{case}.png", square() // 255)
    save(root / "imagesTs" / "US_099_0000.png", texture(9))
    return _dataset(root, **values)


def test_images_in_2d_are_read_and_those_without_a_label_are_unlabelled(tmp_path: Path) -> None:
    index = build_index(_flat(tmp_path / "Dataset007_Breast"))
    assert index.layout == "nnunet"
    assert [(r.id, r.image, r.masks, r.domain) for r in index.records] == [
        ("US_002", "imagesTr/US_002_0000.png", ("labelsTr/US_002.png",), "Dataset007_Breast"),
        ("US_010", "imagesTr/US_010_0000.png", ("labelsTr/US_010.png",), "Dataset007_Breast"),
        ("US_011", "imagesTr/US_011_0000.png", (), "Dataset007_Breast"),
    ]


def test_volumes_are_read_slice_by_slice(tmp_path: Path) -> None:
    root = _dataset(tmp_path, file_ending=".nii.gz", labels={"background": 0, "PZ": 1, "TZ": 2})
    voxels = np.stack([texture(i, 8, 10) for i in range(4)], axis=2)
    for case in ("la_1", "la_2"):
        save_nifti(root / "imagesTr" / f"{case}_0000.nii.gz", voxels + np.uint8(case == "la_2"), (0.5, 0.75, 3))
    save_nifti(root / "labelsTr" / "la_1.nii.gz", (voxels % 3).astype(np.uint8), (0.5, 0.75, 3))
    records = build_index(root, classes=3).records
    assert [(r.id, str(r.frame), r.labelled) for r in records[:2]] == [("la_1/z0", "z0", True), ("la_1/z1", "z1", True)]
    assert {(r.group, r.spacing, r.slice_mm) for r in records if r.labelled} == {("la_1/z0", (0.75, 0.5), 3.0)}
    assert [r.labelled for r in records] == [True] * 4 + [False] * 4
    with pytest.raises(DataError, match=r"hold 3 classes \(background, PZ, TZ\); set network.classes to 3"):
        build_index(root)


def test_files_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    root = _flat(tmp_path)
    save(root / "imagesTr" / "nochannel.png", texture(5))
    save(root / "imagesTr" / "US_012_0000.bmp", texture(6))
    save(root / "labelsTr" / "lost.png", square())
    with pytest.raises(DataError) as caught:
        build_index(root)
    for line in (
        "imagesTr/nochannel.png: is not called CASE_0000.png",
        "imagesTr/US_012_0000.bmp: is not called CASE_0000.png",
        "labelsTr/lost.png",
    ):
        assert line in str(caught.value)


def test_further_channels_are_refused(tmp_path: Path) -> None:
    root = _flat(tmp_path)
    save(root / "imagesTr" / "US_002_0001.png", texture(5))
    with pytest.raises(DataError, match=r"1 files of further channels, such as imagesTr/US_002_0001\.png"):
        build_index(root)


def test_a_description_of_version_1_and_one_of_regions_are_read(tmp_path: Path) -> None:
    root = _flat(tmp_path, labels={"0": "background", "1": "lesion"}, channel_names=None, modality={"0": "US"})
    assert len(build_index(root).records) == 3
    _dataset(root, labels={"background": 0, "whole": [1, 2], "core": 2})
    assert len(build_index(root, classes=3).records) == 3
    with pytest.raises(DataError, match=r"3 classes \(background, whole, whole\)"):
        build_index(root)


def test_rules_for_the_values_stand_above_the_description(tmp_path: Path) -> None:
    """One structure of many, in place of as many classes as the description has, its label to ignore among them."""
    root = _flat(tmp_path, labels={"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4})
    with pytest.raises(DataError, match=r"set data\.ignore_label 4"):
        build_index(root)
    assert {record.mask_values for record in build_index(root, mask_values="1:1,*:0").records} == {"1:1,*:0"}


def test_the_label_ignore_is_that_of_the_configuration(tmp_path: Path) -> None:
    index = build_index(_flat(tmp_path, labels=LESION | {"ignore": 2}), ignore_label=2)
    assert {record.ignore for record in index.records} == {2}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"labels": LESION | {"ignore": 2}},
            "'ignore' marks pixels that do not count; set data.ignore_label 2",
        ),
        ({"labels": None}, "labels must be names with their numbers"),
        ({"labels": {"background": 0, "lesion": 1.5}}, "lesion is 1.5"),
        ({"labels": {"background": 0, "lesion": 300}}, "lesion is 300"),
        ({"labels": {"background": 0, "lesion": True}}, "lesion is True"),
        ({"labels": {"a": []}}, "labels must be"),
        ({"file_ending": ".b2nd"}, "file_ending '.b2nd' is no format that is read"),
        ({"file_ending": 3}, "file_ending 3"),
        ({"dataset": {}}, "lists its files under 'dataset'"),
    ],
)
def test_a_description_that_is_not_understood_is_refused(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        build_index(_flat(tmp_path, **values))
    assert "dataset.json" in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    root = _flat(tmp_path)
    for content in (b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b""):
        (root / "dataset.json").write_bytes(content)
        with pytest.raises(DataError, match=r"dataset\.json"):
            build_index(root)
