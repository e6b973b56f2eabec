"""The images to which a model is adapted: evenly spread, of every kind of file."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from data.support import save_itk
from semidg.data.images import resize_image
from semidg.errors import DataError
from semidg.experiment.bundle import Bundle
from semidg.networks.ensemble import Ensemble
from semidg.report import adapting
from semidg.report.adapting import sample_images
from semidg.report.prediction_jobs import find_jobs
from tests_support import tiny_config

BUNDLE = Bundle(Ensemble([]), tiny_config().network, 32, 3, {})


def grey(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30), level, np.uint8)).save(path)
    return path


def test_all_of_a_few_and_some_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(10):
        grey(tmp_path / "in" / f"{k:02d}.png", 10 * k)
    jobs = find_jobs([tmp_path / "in"], tmp_path / "out")
    found, problems = sample_images(BUNDLE, jobs)
    assert found.shape == (10, 32, 32, 3)
    assert found.dtype == np.uint8
    assert found[:, 0, 0, 0].tolist() == list(range(0, 100, 10))
    assert problems == []
    monkeypatch.setattr(adapting, "MOST", 4)
    some, _ = sample_images(BUNDLE, jobs)
    assert some[:, 0, 0, 0].tolist() == [0, 30, 60, 90]


def test_planes_of_volumes_count_too_and_bad_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = np.arange(6, dtype=np.uint8)[None, None] * np.full((24, 20, 1), 20, np.uint8)
    nib.save(nib.Nifti1Image(planes, np.eye(4)), tmp_path / "v.nii.gz")
    (tmp_path / "bad.png").write_bytes(b"no image")
    grey(tmp_path / "x.png", 77)
    jobs = find_jobs([tmp_path], tmp_path / "out")
    found, problems = sample_images(BUNDLE, jobs, "z")
    assert sorted(found[:, 5, 5, 0].tolist()) == sorted([*np.unique(resized(planes)), 77])
    assert len(problems) == 1
    assert "bad.png" in problems[0]
    monkeypatch.setattr(adapting, "MOST", 3)  # one plane a file
    assert len(sample_images(BUNDLE, jobs, "z")[0]) == 2
    with pytest.raises(DataError, match=r"bad\.png"):
        sample_images(BUNDLE, find_jobs([tmp_path / "bad.png"], tmp_path / "out"))


def resized(planes: np.ndarray) -> list[int]:
    """What is read of a constant plane: stretched from the least to the largest value of the volume."""
    top = int(planes.max())
    values = [round(255 * int(planes[0, 0, k]) / top) for k in range(planes.shape[2])]
    return [int(resize_image(np.full((24, 20, 3), value, np.uint8), 32)[5, 5, 0]) for value in values]


def test_folders_of_masks_are_no_images(tmp_path: Path) -> None:
    for name in ("original/1", "original/2", "GT/1", "GT/3", "busbra/Images/bus_1", "busbra/Masks/mask_1", "labels/x"):
        grey(tmp_path / f"{name}.png", 5)
    jobs = find_jobs([tmp_path], tmp_path / "out")
    assert sorted(job.image.relative_to(tmp_path).as_posix() for job in jobs) == [
        "GT/3.png",  # of no image beside it
        "busbra/Images/bus_1.png",
        "labels/x.png",
        "original/1.png",
        "original/2.png",
    ]
    assert len(find_jobs([tmp_path / "GT"], tmp_path / "out")) == 2  # asked for


def test_masks_named_like_their_images_are_no_images(tmp_path: Path) -> None:
    """In a folder called so, where names differ by what all begin and end with; as 3D Slicer names them."""
    for name in ("img/p1", "img/p2", "img/p3", "labels/p1_lab", "labels/p2_lab", "labels/p3_lab"):
        grey(tmp_path / "a" / f"{name}.png", 5)
    assert {job.image.parent.name for job in find_jobs([tmp_path / "a"], tmp_path / "out")} == {"img"}
    for name in ("case.nrrd", "case.seg.nrrd", "case_mask.nrrd", "other.seg.nrrd"):
        save_itk(tmp_path / "b" / name, np.zeros((4, 5, 6), np.uint8))
    found = [job.image.name for job in find_jobs([tmp_path / "b"], tmp_path / "out")]
    assert found == ["case.nrrd", "other.seg.nrrd"]
    names = ["A.JPEG", "A_mask.png", "b.tif", "b_Seg_2.png", "c.png", "c_label.png", "d_gt.png", "e_segmentation.png"]
    for name in names:
        grey(tmp_path / "c" / name, 5)
    found = [job.image.name for job in find_jobs([tmp_path / "c"], tmp_path / "out")]
    assert found == ["A.JPEG", "b.tif", "c.png", "d_gt.png", "e_segmentation.png"]  # the last two of no image
    for name in ("image_mha/1", "image_mha/2", "label_mha/1", "label_mha/2"):
        save_itk(tmp_path / "d" / f"{name}.mha", np.zeros((4, 5), np.uint8))
    assert {job.image.parent.name for job in find_jobs([tmp_path / "d"], tmp_path / "out")} == {"image_mha"}
