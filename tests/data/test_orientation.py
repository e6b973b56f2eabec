"""Volumes stored in all 48 orientations: turned to the patient they are one, and what is written fits each file."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes

from semidg.data import volume
from semidg.data.frames import planes
from semidg.data.grey import stretch, window
from semidg.data.index import build_index
from semidg.data.nifti_save import save_like
from semidg.data.reading import plane_image, record_image, record_mask
from semidg.data.voxels import read_header
from semidg.errors import DataError

from .support import save_nifti

CODES = ["".join(codes) for pairs in permutations(("LR", "PA", "IS")) for codes in product(*pairs)]


def stored(codes: str, dtype: type = np.int16) -> nib.Nifti1Image:
    """One volume with an affine that is a little oblique, stored so that its axes run to ``codes``: nibabel's work."""
    lpi = np.random.default_rng(0).permutation(7 * 6 * 4).reshape(7, 6, 4).astype(dtype)
    axes = np.diag([-0.5, -0.7, -3.0, 1.0])
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    tilt[:3, 3] = 11, -7, 20
    image = nib.Nifti1Image(lpi, tilt @ axes)
    start, end = (nib.orientations.axcodes2ornt(c) for c in ("LPI", codes))
    return image.as_reoriented(nib.orientations.ornt_transform(start, end))


def test_there_are_48() -> None:
    assert len({*CODES}) == 48


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("axis", ["auto", "x", "y"])
def test_turned_to_the_patient_all_are_one(codes: str, axis: str, tmp_path: Path) -> None:
    image = stored(codes)
    assert "".join(aff2axcodes(image.affine)) == codes
    nib.save(image, tmp_path / "v.nii")
    reference = np.flip(np.asarray(nib.as_closest_canonical(image).dataobj), (0, 1, 2))  # RAS -> LPI
    found = planes(tmp_path / "v.nii", axis, "patient")
    across = {"auto": 2, "x": 0, "y": 1}[axis]
    inside = [k for k in range(3) if k != across]
    assert found.frames is not None
    assert [str(f) for f in found.frames] == [f"{'lpi'[across]}{n}" for n in range((7, 6, 4)[across])]
    assert (found.width, found.height) == tuple((7, 6, 4)[k] for k in inside)
    mm = (0.5, 0.7, 3.0)
    assert found.spacing == pytest.approx((mm[inside[1]], mm[inside[0]]))
    assert found.slice_mm == pytest.approx(mm[across])
    grey = stretch(reference, *window(reference, tmp_path / "v.nii"))
    for frame in found.frames:
        expected = np.take(grey, frame.number, across).T
        assert (plane_image(tmp_path / "v.nii", frame, 1)[..., 0] == expected).all()


@pytest.mark.parametrize("codes", CODES)
def test_what_is_written_plane_by_plane_is_in_the_geometry_of_the_file(codes: str, tmp_path: Path) -> None:
    image = stored(codes, np.uint8)
    nib.save(image, tmp_path / "v.nii")
    header = read_header(tmp_path / "v.nii")
    voxels = np.asarray(image.dataobj)
    copy = np.zeros(header.shape, np.uint8, order="F")
    into, source = (volume.turned(array, header, tmp_path / "v.nii") for array in (copy, voxels))
    for frame in planes(tmp_path / "v.nii", "auto", "patient").frames or ():
        volume.plane(into, frame)[...] = volume.plane(source, frame)
    save_like(tmp_path / "m.nii.gz", tmp_path / "v.nii", copy)
    written = nib.load(tmp_path / "m.nii.gz")
    assert (np.asarray(written.dataobj) == voxels).all()
    assert written.affine.tobytes() == nib.load(tmp_path / "v.nii").affine.tobytes()
    assert (written.header["pixdim"] == image.header["pixdim"]).all()


@pytest.mark.parametrize("times", [None, 2])
def test_image_and_mask_may_be_stored_in_two_ways(times: int | None, tmp_path: Path) -> None:
    ways = {"p0": ("LPI", "LPI"), "p1": ("SAR", "LPI"), "p2": ("PIL", "RAS")}
    for name, (of_image, of_mask) in ways.items():
        image, mask = stored(of_image), stored(of_mask)
        voxels, labels = np.asarray(image.dataobj), (np.asarray(mask.dataobj) > 80).astype(np.uint8)
        if times:
            voxels, labels = (np.stack([values] * times, -1) for values in (voxels, labels))
        for part, data, affine in (
            ("images", voxels, image.affine),
            ("masks", labels, mask.affine),
        ):
            (tmp_path / "a" / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, affine), tmp_path / "a" / part / f"{name}.nii.gz")
    with pytest.raises(DataError, match=r"p1\.nii\.gz"):
        build_index(tmp_path)
    index = build_index(tmp_path, orientation="patient")
    assert len(index.records) == 3 * 4 * (times or 1)
    by_plane: dict[str, list[tuple[bytes, bytes]]] = {}
    for record in index.records:
        pair = record_image(index.root, record, 1).tobytes(), record_mask(index.root, record).tobytes()
        by_plane.setdefault(record.id.rpartition("/")[2], []).append(pair)
    assert len(by_plane) == 4 * (times or 1)
    assert all(len({*pairs}) == 1 and len(pairs) == 3 for pairs in by_plane.values())
    assert len({record.group for record in index.records}) == 1  # copies


def test_a_file_that_does_not_tell_how_it_lies_is_told(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), None)
    (tmp_path / "a" / "images").mkdir(parents=True)
    path = tmp_path / "a" / "images" / "v.nii"
    nib.save(image, path)
    assert planes(path).frames
    with pytest.raises(DataError, match=r"v\.nii: does not tell how its axes lie.*data\.orientation"):
        build_index(tmp_path, orientation="patient")
    frame = planes(save_nifti(tmp_path / "w.nii", np.zeros((5, 4, 3), np.int16)), "auto", "patient").frames
    assert frame is not None
    with pytest.raises(DataError, match=r"v\.nii: does not tell how its axes lie"):
        plane_image(path, frame[0], 1)


def test_an_image_of_two_dimensions_stays_as_it_is_stored(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "v.nii", np.arange(20, dtype=np.uint8).reshape(5, 4))
    assert planes(path, "auto", "patient") == planes(path)
