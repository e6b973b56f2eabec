from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from semidg.data.frames import Axis, Planes, expand, planes
from semidg.data.images import is_image_name, stem
from semidg.data.index import build_index
from semidg.errors import DataError
from semidg.types import Frame, Record

from .support import record, save, save_dicom, save_nifti, texture


def test_a_plain_file_of_any_format_has_no_frames(tmp_path: Path) -> None:
    assert planes(save(tmp_path / "x.png", texture(1))) == Planes(None, 40, 30, None, None)
    assert planes(save_dicom(tmp_path / "x.dcm", texture(1), PixelSpacing=[0.5, 0.25])) == Planes(
        None, 40, 30, (0.5, 0.25), None
    )
    flat = save_nifti(tmp_path / "x.nii", np.zeros((40, 30, 1), np.int16), (0.25, 0.5, 3))
    assert planes(flat) == Planes(None, 40, 30, (0.5, 0.25), None, "RAS")


@pytest.mark.parametrize(
    ("zooms", "axis", "expected"),
    [
        ((1, 2, 3), "auto", ("z", 7, 5, 6, (2, 1), 3)),
        ((3, 1, 2), "auto", ("x", 5, 6, 7, (2, 1), 3)),
        ((1, 3, 2), "auto", ("y", 6, 5, 7, (2, 1), 3)),
        ((2, 2, 2), "auto", ("z", 7, 5, 6, (2, 2), 2)),
        ((3, 3, 1), "auto", ("y", 6, 5, 7, (1, 3), 3)),
        ((1, 2, 3), "x", ("x", 5, 6, 7, (3, 2), 1)),
        ((1, 2, 3), "y", ("y", 6, 5, 7, (3, 1), 2)),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slices_lie_across_the_axis(
    tmp_path: Path, zooms: tuple[float, ...], axis: Axis, expected: tuple, ending: str
) -> None:
    found = planes(save_nifti(tmp_path / f"v{ending}", np.zeros((5, 6, 7), np.float32), zooms), axis)
    letter, count, width, height, spacing, slice_mm = expected
    assert found == Planes(tuple(Frame(letter, n) for n in range(count)), width, height, spacing, slice_mm, "RAS")


def test_the_axis_of_one_voxel_is_the_one_across(tmp_path: Path) -> None:
    found = planes(save_nifti(tmp_path / "v.nii", np.zeros((1, 6, 7), np.int16), (1, 1, 3)))
    assert found.frames == (Frame("x", 0),)


def test_a_series_has_all_its_times_and_units_are_converted(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((5, 6, 2, 3), np.int16), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "v.nii")
    found = planes(tmp_path / "v.nii")
    assert found.frames == tuple(Frame("z", n, t) for t in range(3) for n in range(2))
    assert found.spacing == pytest.approx((1, 1))
    assert found.slice_mm == pytest.approx(2)


def test_a_film_and_a_tiff_of_several_pages_have_frames(tmp_path: Path) -> None:
    film = np.stack([texture(n) for n in range(3)])
    pages = [Image.fromarray(page) for page in film]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    frames = tuple(Frame("f", n) for n in range(3))
    assert planes(tmp_path / "x.tif") == Planes(frames, 40, 30, None, None)
    assert planes(save_dicom(tmp_path / "x.dcm", film, ImagerPixelSpacing=[1, 2])) == Planes(
        frames, 40, 30, (1, 2), None
    )


def test_a_tiff_with_pages_of_two_sizes_and_an_animation_are_refused(tmp_path: Path) -> None:
    Image.fromarray(texture(1)).save(tmp_path / "x.tif", save_all=True, append_images=[Image.new("L", (9, 9))])
    with pytest.raises(DataError, match=r"x\.tif: page 1 is 9 x 9, the first one 40 x 30"):
        planes(tmp_path / "x.tif")
    Image.fromarray(texture(1)).save(tmp_path / "x.gif", save_all=True, append_images=[Image.fromarray(texture(2))])
    with pytest.raises(DataError, match=r"x\.gif: holds 2 frames"):
        planes(tmp_path / "x.gif")


def test_expand_makes_one_record_a_plane_with_ids_that_sort(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "v.nii", np.zeros((4, 5, 12, 2), np.int16), (1, 1.5, 3, 1))
    whole = Record("a/v", "a/images/v.nii", ("a/masks/v.nii",), "a", "", "", 0, 0)
    found = expand(whole, planes(path))
    assert [r.id for r in found] == sorted(r.id for r in found)
    assert found[0].id == "a/v/t0z00"
    assert found[-1] == Record("a/v/t1z11", whole.image, whole.masks, "a", "", "", 4, 5, (1.5, 1), Frame("z", 11, 1), 3)
    assert {r.volume for r in found} == {"a/images/v.nii:zt0", "a/images/v.nii:zt1"}
    assert [str(r.frame) for r in expand(whole, planes(path), times=[1])] == [f"z{n}t1" for n in range(12)]
    with pytest.raises(DataError, match=r"a/images/v\.nii: has no time 2"):
        expand(whole, planes(path), times=[2])


def test_expand_keeps_a_plain_record_and_a_spacing_and_group_that_it_has() -> None:
    plain = record("1")
    assert expand(plain, Planes(None, 40, 30, (1, 2), None))[0].spacing == (1, 2)
    assert expand(plain, Planes(None, 40, 30, None, None)) == [plain]
    film = Planes((Frame("f", 0), Frame("f", 1)), 40, 30, (1, 2), None)
    found = expand(record("1", group="patient-1"), film)
    assert [(r.id, r.group, r.volume) for r in found] == [("1/f0", "patient-1", None), ("1/f1", "patient-1", None)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v.nii.gz", "v"),
        ("V.NII.GZ", "V"),
        ("a.b.nii", "a.b"),
        ("x.gz", "x"),
        ("x.dcm", "x"),
        ("x", "x"),
        ("p/q.tar.png", "p/q.tar"),
    ],
)
def test_stem(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_endings() -> None:
    assert all(map(is_image_name, ("a.nii", "a.NII.GZ", "a.dcm", "a.DICOM", "a.png", "a.TIFF")))
    assert not any(map(is_image_name, ("a.gz", ".a.nii", "._a.nii.gz", "a.img", "nii", "a.tar.gz")))


@pytest.mark.parametrize("wrong", ["orientation", "planes"])
def test_a_table_of_frames_has_masks_of_the_same_planes_and_orientation(tmp_path: Path, wrong: str) -> None:
    voxels = np.stack([texture(k) for k in range(6)], -1)
    mask = np.zeros_like(voxels)
    mask[5:9, 5:9] = 1
    save_nifti(tmp_path / "s.nii.gz", voxels, (1, 1, 3))
    save_nifti(tmp_path / "m.nii.gz", mask, (1, 1, 3))
    table = tmp_path / "t.csv"
    table.write_text("image,mask,frame\n" + "".join(f"s.nii.gz,m.nii.gz,z{k}\n" for k in range(2)))
    assert [str(r.frame) for r in build_index(table).records] == ["z0", "z1"]
    if wrong == "planes":
        save_nifti(tmp_path / "m.nii.gz", mask[..., :4], (1, 1, 3))
    else:
        nib.save(nib.Nifti1Image(mask, np.diag([-1, -1, 3, 1])), tmp_path / "m.nii.gz")
    with pytest.raises(DataError, match=r"s\.nii\.gz is .*(stored RAS, m\.nii\.gz LPS|in 6 planes, m\.nii\.gz is)"):
        build_index(table)


def test_a_volume_is_the_mask_of_every_time_in_a_table_of_frames(tmp_path: Path) -> None:
    film = np.stack([np.stack([texture(10 * t + k) for k in range(3)], -1) for t in range(2)], -1)
    save_nifti(tmp_path / "s.nii.gz", film, (1, 1, 3, 1))
    save_nifti(tmp_path / "m.nii.gz", (film[..., 0] > 128).astype(np.uint8), (1, 1, 3))
    (tmp_path / "t.csv").write_text("image,mask,frame\ns.nii.gz,m.nii.gz,z1t0\ns.nii.gz,m.nii.gz,z1t1\n")
    assert len(build_index(tmp_path / "t.csv").records) == 2
