from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing, convert_color_space

from semidg.data import dicom
from semidg.data.dicom_grey import Window, windowed
from semidg.data.frames import planes
from semidg.data.masks import Coding
from semidg.data.reading import plane_image, plane_mask
from semidg.errors import DataError
from semidg.types import Frame

from .support import save_dicom, square, texture

INSTALLED = Path(pydicom.__file__).parent / "data" / "test_files"


def installed(name: str) -> Path:
    """A file of pydicom's own wheel: nothing is downloaded."""
    return INSTALLED / name


def grey(path: Path) -> np.ndarray:
    return plane_image(path, None, 1)[..., 0]


def test_eight_bits_without_a_window_stay_as_they_are_and_monochrome1_is_turned_over(tmp_path: Path) -> None:
    pixels = texture(1)
    assert (grey(save_dicom(tmp_path / "a.dcm", pixels)) == pixels).all()
    assert (grey(save_dicom(tmp_path / "b.dcm", pixels, "MONOCHROME1")) == 255 - pixels).all()
    assert plane_image(tmp_path / "a.dcm", None, 3).shape == (30, 40, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("slope", [1.0, 2.0, -1.0])
def test_deeper_values_without_a_window_go_by_percentiles(tmp_path: Path, dtype: type, slope: float) -> None:
    pixels = (texture(1).astype(np.int32) * 30 - (3000 if dtype is np.int16 else 0)).astype(dtype)
    path = save_dicom(tmp_path / "a.dcm", pixels, RescaleSlope=slope, RescaleIntercept=-1024)
    values = pixels * slope - 1024
    low, high = np.percentile(values, (0.5, 99.5))
    assert np.abs(grey(path) - np.clip((values - low) / (high - low), 0, 1) * 255).max() <= 1


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_first_window_is_that_of_pydicom(tmp_path: Path, kind: str, function: str) -> None:
    pixels = (texture(1).astype(np.int16) - 100) * 9
    elements = {"RescaleSlope": 2, "RescaleIntercept": -50, "WindowCenter": [40, 600], "WindowWidth": [400, 9]}
    path = save_dicom(tmp_path / "a.dcm", pixels, kind, VOILUTFunction=function, **elements)
    dataset = pydicom.dcmread(path)
    expected = apply_windowing(pixels * 2.0 - 50, dataset)
    lowest, highest = (value * 2.0 - 50 for value in (-(2**15), 2**15 - 1))
    expected = (expected - lowest) / (highest - lowest) * 255
    expected = 255 - expected if kind == "MONOCHROME1" else expected
    assert np.abs(grey(path) - expected).max() <= 0.51


def test_a_window_of_width_one_is_a_threshold_and_an_unusable_one_is_none(tmp_path: Path) -> None:
    assert windowed(np.array([3, 4, 5]), Window(4.5, 1, "LINEAR")).tolist() == [0, 128, 255]
    plain = save_dicom(tmp_path / "a.dcm", texture(1))
    for center, width in ((None, 3), (3, 0), ("", ""), (5, None)):
        path = save_dicom(tmp_path / "b.dcm", texture(1), WindowCenter=center, WindowWidth=width)
        assert (grey(path) == grey(plain)).all()


def test_a_voi_table_is_looked_up(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.LUTData = list(range(255, -1, -1))
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    pixels = texture(1)
    assert (grey(save_dicom(tmp_path / "a.dcm", pixels, VOILUTSequence=[table])) == 255 - pixels).all()


def test_colour_palette_and_ybr(tmp_path: Path) -> None:
    colour = texture(1, channels=3)
    assert (plane_image(save_dicom(tmp_path / "rgb.dcm", colour, "RGB"), None, 3) == colour).all()
    luma = grey(tmp_path / "rgb.dcm").astype(float)
    assert np.abs(luma - colour @ np.array([0.299, 0.587, 0.114])).max() <= 1
    ybr = convert_color_space(colour, "RGB", "YBR_FULL")
    found = plane_image(save_dicom(tmp_path / "ybr.dcm", ybr, "YBR_FULL"), None, 3)
    assert np.abs(found.astype(int) - colour).max() <= 3
    elements: dict[str, Any] = {}
    for number, name in enumerate(("Red", "Green", "Blue")):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        entries = np.roll(np.arange(256, dtype="<u2"), number * 50) * 257
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    path = save_dicom(tmp_path / "palette.dcm", texture(1), "PALETTE COLOR", **elements)
    expected = np.stack([np.roll(np.arange(256), n * 50)[texture(1)] for n in range(3)], -1)
    assert (plane_image(path, None, 3) == expected).all()


def test_frames_have_one_rule_for_the_file_but_rescalings_of_their_own(tmp_path: Path) -> None:
    film = np.stack([texture(1), texture(2) // 4]).astype(np.uint16)
    path = save_dicom(tmp_path / "a.dcm", film)
    low, high = np.percentile(film, (0.5, 99.5))
    for number in range(2):
        plane = plane_image(path, Frame("f", number), 1)[..., 0]
        assert np.abs(plane - np.clip((film[number] - low) / (high - low), 0, 1) * 255).max() <= 1
    groups = []
    for slope in (1, 4):
        transformation, group = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, 0
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    path = save_dicom(tmp_path / "b.dcm", np.stack([film[0], film[0]]), PerFrameFunctionalGroupsSequence=groups)
    dark, bright = (plane_image(path, Frame("f", number), 1).astype(float).mean() for number in range(2))
    assert bright > 2 * dark


def test_masks_by_the_rules_of_all_formats(tmp_path: Path) -> None:
    mask = square()
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        assert (plane_mask(save_dicom(tmp_path / "m.dcm", mask, kind), None) == mask // 255).all()
    red = np.zeros((30, 40, 3), np.uint8)
    red[..., 0] = mask
    assert (plane_mask(save_dicom(tmp_path / "r.dcm", red, "RGB"), None) == mask // 255).all()
    with pytest.raises(DataError, match=r"r\.dcm: a mask of 3 classes in colour"):
        plane_mask(tmp_path / "r.dcm", None, Coding(3))
    numbers = np.stack([np.full((4, 5), n, np.uint8) for n in range(3)])
    path = save_dicom(tmp_path / "n.dcm", numbers)
    assert [plane_mask(path, Frame("f", n), Coding(3)).max() for n in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"n\.dcm: mask with grey values \(0, 1, 2\)"):
        plane_mask(path, Frame("f", 0))


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("JPEGLSNearLossless_16.dcm", "JPEG-LS Lossy"),
        ("MR_small_jpeg_ls_lossless.dcm", "JPEG-LS Lossless"),
        ("SC_rgb_jpeg_gdcm.dcm", "JPEG Lossless"),
        ("JPGExtended.dcm", "JPEG Extended"),
    ],
)
def test_a_syntax_that_cannot_be_decoded_is_named_with_the_mend(
    name: str, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = installed(name)
    for decoder in vars(pydicom.pixels.decoders.base).values():
        if isinstance(decoder, pydicom.pixels.decoders.base.Decoder):
            only = {k: v for k, v in decoder._available.items() if k in ("pydicom", "pillow")}
            monkeypatch.setattr(decoder, "_available", only)  # whatever else is installed here
    with pytest.raises(DataError, match=rf"{re.escape(name)}.*{re.escape(syntax)}.*store it uncompressed"):
        dicom.read_pixels(path)


@pytest.mark.parametrize(
    "name",
    [
        *("CT_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "examples_palette.dcm"),
        *("J2K_pixelrep_mismatch.dcm", "SC_ybr_full_422_uncompressed.dcm", "examples_ybr_color.dcm", "rtdose_rle.dcm"),
    ],
)
def test_files_of_others_become_pictures(name: str) -> None:
    path = installed(name)
    found = planes(path)
    plane = plane_image(path, found.frames[0] if found.frames else None, 3)
    assert plane.shape == (found.height, found.width, 3)
    assert plane.std() > 5


def test_all_encodings_of_one_picture_agree() -> None:
    names = ("MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit")
    pictures = [grey(installed(f"{name}.dcm")) for name in names]
    assert all((picture == pictures[0]).all() for picture in pictures)


def test_files_without_an_image_and_no_dicom_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no image" * 100)
    for path, text in ((tmp_path / "empty.dcm", "is empty"), (tmp_path / "text.dcm", "not a DICOM file")):
        with pytest.raises(DataError, match=text):
            planes(path)
    with pytest.raises(DataError, match=r"rtplan\.dcm: a DICOM file without an image"):
        planes(installed("rtplan.dcm"))
    with pytest.raises(DataError, match=r"MR_truncated\.dcm: damaged or truncated"):
        grey(installed("MR_truncated.dcm"))


def test_a_claim_beyond_the_limits_is_refused_before_decoding(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", texture(1), NumberOfFrames=99999999)
    with pytest.raises(DataError, match=r"a\.dcm: claims 40 x 30 pixels in 99999999 planes, more than the safe limit"):
        planes(path)
    path = save_dicom(tmp_path / "b.dcm", texture(1), NumberOfFrames=60000)
    with pytest.raises(DataError, match=r"b\.dcm: damaged or truncated"):
        plane_image(path, Frame("f", 0), 1)


def test_spacing_of_ultrasound_regions_is_taken_where_they_agree(tmp_path: Path) -> None:
    def region(delta: float, unit: int = 3) -> Dataset:
        found = Dataset()
        found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = unit
        found.PhysicalDeltaX, found.PhysicalDeltaY = delta, 2 * delta
        return found

    for regions, expected in (
        ([region(0.01), region(0.5, unit=4)], (0.2, 0.1)),
        ([region(0.01), region(0.02)], None),
        ([], None),
    ):
        found = planes(save_dicom(tmp_path / "a.dcm", texture(1), SequenceOfUltrasoundRegions=regions)).spacing
        assert found == (expected if expected is None else pytest.approx(expected))
