"""Masks that their header places elsewhere than their image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from audit_support import audit
from semidg.data import voxels


def write(root: Path, name: str, shift: float, codes: str = "RAS", coded: bool = True) -> None:
    rng = np.random.default_rng(len(name))
    affine = np.diag([0.5, 0.5, 3, 1.0])
    for part, values, moved in (
        ("images", rng.integers(0, 200, (20, 16, 4)), 0.0),
        ("masks", np.pad(np.ones((8, 8, 4)), ((6, 6), (4, 4), (0, 0))), shift),
    ):
        (root / "a" / part).mkdir(parents=True, exist_ok=True)
        place = affine.copy()
        place[0, 3] = moved
        image = nib.Nifti1Image(values.astype(np.uint8), place if coded or part == "images" else None)
        if part == "masks" and coded:
            start, end = (nib.orientations.axcodes2ornt(c) for c in ("RAS", codes))
            image = image.as_reoriented(nib.orientations.ornt_transform(start, end))
        nib.save(image, root / "a" / part / f"{name}.nii.gz")


def test_a_mask_that_lies_elsewhere_is_told_once(tmp_path: Path) -> None:
    write(tmp_path, "right", 0)
    write(tmp_path, "rounded", 0.01)
    write(tmp_path, "moved", 40)
    write(tmp_path, "turned", 0, "LIP")
    write(tmp_path, "without", 0, coded=False)
    found = audit(tmp_path, orientation="patient", slice_axis="z")
    kinds = {issue.kind for issue in found.issues}
    told = [issue for issue in found.issues if issue.kind == "mask placed elsewhere"]
    assert [(issue.id, issue.file) for issue in told] == [("a/moved/i0", "a/masks/moved.nii.gz")]
    assert told[0].value == pytest.approx(40)
    assert told[0].severity == "warning"
    assert "file that cannot be used" in kinds  # the mask without an affine cannot be turned
    stored = audit(tmp_path)
    assert [i.id for i in stored.issues if i.kind == "mask placed elsewhere"] == ["a/moved/z0"]


def test_a_mask_of_some_planes_alone_that_lies_elsewhere_is_told(tmp_path: Path) -> None:
    write(tmp_path, "moved", 40)
    (tmp_path / "t.csv").write_text(
        "image,mask,frame\n" + "".join(f"a/images/moved.nii.gz,a/masks/moved.nii.gz,z{k}\n" for k in (2, 3))
    )
    told = [issue for issue in audit(tmp_path / "t.csv").issues if issue.kind == "mask placed elsewhere"]
    assert [(issue.file, round(issue.value or 0)) for issue in told] == [("a/masks/moved.nii.gz", 40)]


def test_the_file_of_an_issue_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, "right", 0)
    write(tmp_path, "left and up", 0, "LPS")
    write(tmp_path, "short", 0)
    voxels = np.zeros((20, 16, 3), np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a" / "masks" / "short.nii.gz")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a" / "masks" / "this and that.png")
    files = {issue.file for issue in audit(tmp_path).issues if issue.severity == "error"}
    assert {f"a/masks/{name}" for name in ("left and up.nii.gz", "short.nii.gz", "this and that.png")} <= files
    assert all((tmp_path / name).is_file() for name in files)


def test_the_centre_is_the_same_however_voxels_are_stored(tmp_path: Path) -> None:
    write(tmp_path, "v", 3, "PIR")
    write(tmp_path, "without", 3, coded=False)
    one, other = (voxels.centre(tmp_path / "a" / part / "v.nii.gz") for part in ("images", "masks"))
    assert one is not None
    assert other is not None
    assert np.allclose(other - one, (3, 0, 0))
    assert np.allclose(one, (19 / 4, 15 / 4, 4.5))
    assert voxels.centre(tmp_path / "a" / "masks" / "without.nii.gz") is None
