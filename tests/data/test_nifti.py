from __future__ import annotations

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.data import nifti_save
from semidg.data.frames import Axis, planes
from semidg.data.masks import Coding
from semidg.data.reading import plane_image, plane_mask
from semidg.data.voxels import read_header, read_labels, read_volume
from semidg.errors import DataError, SemidgError
from semidg.types import Frame

from .support import save_nifti

INSTALLED = Path(nib.__file__).parent / "tests" / "data"


def reference(path: Path) -> np.ndarray:
    """All grey values by nibabel and the written rule, one number after the other."""
    values = np.asarray(nib.load(path).dataobj, dtype=np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:
        low, high = values.min(), values.max()
    return np.rint(np.clip((values - low) / ((high - low) or 1), 0, 1) * 255)


def slice_by_index(volume: np.ndarray, frame: Frame) -> np.ndarray:
    """(H, W) of a volume voxel by voxel, as the docstring of the module says."""
    if volume.ndim == 4:
        assert frame.time is not None
        volume = volume[..., frame.time]
    x, y, z = volume.shape
    n = frame.number
    if frame.axis == "z":
        return np.array([[volume[i, j, n] for i in range(x)] for j in range(y)])
    if frame.axis == "y":
        return np.array([[volume[i, n, j] for i in range(x)] for j in range(z)])
    return np.array([[volume[n, i, j] for i in range(y)] for j in range(z)])


@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"])
@pytest.mark.parametrize("axis", ["auto", "x", "y", "z"])
def test_files_of_others_are_read_as_nibabel_reads_them(name: str, axis: Axis) -> None:
    path = INSTALLED / name
    expected, found = reference(path), planes(path, axis)
    assert found.frames is not None
    for frame in found.frames[:: max(1, len(found.frames) // 5)]:
        plane = plane_image(path, frame, 1)[..., 0]
        assert plane.shape == (found.height, found.width)
        assert np.abs(plane - slice_by_index(expected, frame)).max() <= 1


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
    scaling=st.sampled_from([(1.0, 0.0), (2.5, -1000.0), (-0.5, 3.0)]),
    seed=st.integers(0, 99),
    big=st.booleans(),
)
def test_any_shape_type_scaling_and_byte_order(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: type, scaling: tuple, seed: int, big: bool
) -> None:
    path = tmp_path_factory.mktemp("nifti") / "v.nii"
    voxels = np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if big else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(voxels, np.eye(4), header)
    image.header.set_slope_inter(*scaling)
    nib.save(image, path)
    expected = reference(path).reshape(shape)
    found = planes(path)
    for frame in found.frames or (None,):
        plane = plane_image(path, frame, 1)[..., 0]
        wanted = expected[..., 0].T if frame is None else slice_by_index(expected, frame)
        assert np.abs(plane - wanted).max() <= 1


def test_grey_values_have_one_rule_for_all_slices(tmp_path: Path) -> None:
    voxels = np.zeros((40, 40, 3), np.int16)
    voxels[..., 1], voxels[..., 2] = 100, np.linspace(-1000, 1000, 1600).reshape(40, 40)
    path = save_nifti(tmp_path / "v.nii.gz", voxels)
    first, second = (plane_image(path, Frame("z", n), 3) for n in range(2))
    assert first.shape == (40, 40, 3)
    assert len(np.unique(first)) == len(np.unique(second)) == 1
    assert 0 < first[0, 0, 0] < second[0, 0, 0] < 255


def test_few_bright_voxels_and_a_constant_volume(tmp_path: Path) -> None:
    voxels = np.zeros((20, 20, 20), np.float32)
    assert not plane_image(save_nifti(tmp_path / "c.nii", voxels), Frame("z", 3), 1).any()
    voxels[3, 3, 3] = 9
    assert plane_image(save_nifti(tmp_path / "b.nii", voxels), Frame("z", 3), 1).max() == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("value", [1, 255])
def test_masks_follow_the_binary_rule_over_the_whole_volume(tmp_path: Path, dtype: type, value: int) -> None:
    mask = np.zeros((5, 6, 7), dtype)
    mask[2:4, 1:3, 2:5] = value if value < 128 or dtype is not np.int8 else 1
    mask[:, :, 3] = value  # a slice of foreground alone
    path = save_nifti(tmp_path / "m.nii.gz", mask)
    for n in range(7):
        assert (plane_mask(path, Frame("z", n)) == (slice_by_index(mask, Frame("z", n)) > 0)).all()


def test_class_numbers_scaled_numbers_and_values_that_are_none(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    image = nib.Nifti1Image(numbers.astype(np.float64), np.eye(4))
    image.set_data_dtype(np.int16)  # nibabel finds a scaling that is not exact
    nib.save(image, tmp_path / "m.nii")
    assert read_header(tmp_path / "m.nii").slope != 1
    for path in (tmp_path / "m.nii", save_nifti(tmp_path / "f.nii", numbers.astype(np.float32))):
        assert (read_labels(path, Coding(3)) == numbers).all()
        with pytest.raises(DataError, match=rf"{path.name}: mask with grey values \(0, 1, 2\)"):
            read_labels(path, Coding(2))
    with pytest.raises(DataError, match=r"g\.nii: holds the values 0, 0\.5, 1"):
        read_labels(save_nifti(tmp_path / "g.nii", np.array([[[0, 0.5, 1]]])), Coding(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path: Path, bad: float) -> None:
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[1, 2, 3] = bad
    path = save_nifti(tmp_path / "v.nii", voxels)
    with pytest.raises(DataError, match=r"v\.nii: holds NaN or infinite"):
        read_volume(path)
    for classes in (2, 3):
        with pytest.raises(DataError, match=r"v\.nii"):
            read_labels(path, Coding(classes))


def _header(path: Path, position: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[position : position + len(value)] = value
    path.write_bytes(data)
    return path


def test_claims_of_a_header_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    voxels = np.zeros((4, 5, 6), np.int16)
    short = lambda *numbers: np.array(numbers, "<i2").tobytes()  # noqa: E731
    wrong = {
        "truncated": _header(save_nifti(tmp_path / "a.nii", voxels), 40, short(3, 400, 500, 60)),
        "more than the safe limit": _header(save_nifti(tmp_path / "b.nii", voxels), 40, short(3, 32000, 32000, 32000)),
        "claims the dimensions": _header(save_nifti(tmp_path / "c.nii", voxels), 40, short(3, 4, -5, 6)),
        "is not a NIfTI": _header(save_nifti(tmp_path / "d.nii", voxels), 0, b"\0\0"),
        "no single-file": _header(save_nifti(tmp_path / "e.nii", voxels), 344, b"ni1\0"),
        "colour or complex": save_nifti(tmp_path / "f.nii", voxels.astype(np.complex64)),
    }
    (tmp_path / "g.nii").touch()
    wrong["is empty"] = tmp_path / "g.nii"
    for text, path in wrong.items():
        with pytest.raises(DataError, match=text) as caught:
            planes(path)
        assert str(path) in str(caught.value)


def test_a_small_packed_file_that_claims_much_and_a_cut_one_are_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "v.nii", np.zeros((4, 5, 6), np.int16))
    claim = _header(path, 40, np.array([3, 3000, 3000, 100], "<i2").tobytes()).read_bytes()
    (tmp_path / "claim.nii.gz").write_bytes(gzip.compress(claim))
    with pytest.raises(DataError, match=r"claim\.nii\.gz: truncated"):
        planes(tmp_path / "claim.nii.gz")
    noise = np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16)
    whole = save_nifti(tmp_path / "w.nii.gz", noise).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert planes(tmp_path / "cut.nii.gz").width == 20
    with pytest.raises(DataError, match=r"cut\.nii\.gz: damaged or truncated"):
        plane_image(tmp_path / "cut.nii.gz", Frame("z", 0), 1)
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # the checksum
    (tmp_path / "sum.nii.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"sum\.nii\.gz: damaged"):
        plane_image(tmp_path / "sum.nii.gz", Frame("z", 0), 1)


def test_a_file_is_unpacked_whatever_its_ending_says(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.uint8)
    whole = save_nifti(tmp_path / "v.nii", voxels).read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(whole)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(whole))
    for name in ("plain.nii.gz", "packed.nii"):
        assert (read_volume(tmp_path / name) == read_volume(tmp_path / "v.nii")).all()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (4, 5, 6, 2), (4, 5, 1, 1)])
def test_a_written_mask_has_the_geometry_of_its_image(tmp_path: Path, kind: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    affine = np.array([[0, -0.5, 0, 7], [0.7, 0, 0.1, 8], [0, 0, 3, 9], [0, 0, 0, 1]])
    image = kind(rng.random(shape).astype(np.float32), affine)
    image.set_qform(np.diag([0.5, 0.7, 3, 1]), 1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "v.nii.gz")
    labels = rng.integers(0, 3, read_header(tmp_path / "v.nii.gz").shape).astype(np.uint8)
    nifti_save.save_like(tmp_path / "out" / "m.nii.gz", tmp_path / "v.nii.gz", labels)
    nifti_save.save_like(tmp_path / "c.nii.gz", tmp_path / "v.nii.gz", labels, 1 / 255)
    source, made = nib.load(tmp_path / "v.nii.gz"), nib.load(tmp_path / "out" / "m.nii.gz")
    assert made.shape == shape
    assert made.get_data_dtype() == np.uint8
    assert type(made) is kind
    for name in ("get_qform", "get_sform"):
        (ours, our_code), (theirs, their_code) = (getattr(i, name)(coded=True) for i in (made, source))
        assert our_code == their_code
        assert np.allclose(ours, theirs)
    assert np.allclose(made.affine, source.affine)
    assert made.header.get_zooms() == source.header.get_zooms()
    assert made.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert (np.asarray(made.dataobj).reshape(labels.shape) == labels).all()
    assert np.allclose(np.asarray(nib.load(tmp_path / "c.nii.gz").dataobj).reshape(labels.shape), labels / 255)
    with pytest.raises(SemidgError, match=r"m\.nii\.gz"):
        nifti_save.save_like(tmp_path / "v.nii.gz" / "m.nii.gz", tmp_path / "v.nii.gz", labels)


def test_nothing_is_logged_of_a_doubtful_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _header(save_nifti(tmp_path / "v.nii", np.zeros((4, 5, 6), np.int16)), 76, np.full(8, -1, "<f4").tobytes())
    with caplog.at_level(logging.DEBUG):
        assert planes(path).spacing == (1, 1)
    assert not caplog.records
