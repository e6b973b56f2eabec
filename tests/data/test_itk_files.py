"""MetaImage and NRRD files against SimpleITK, which reads and writes them with the reference implementations."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.data.dataset import open_cache
from semidg.data.frames import planes
from semidg.data.index import build_index
from semidg.data.masks import Coding
from semidg.data.reading import plane_image, plane_mask
from semidg.data.volume import Header
from semidg.data.voxels import _read, centre, read_header, read_labels, read_volume
from semidg.errors import DataError
from semidg.types import Frame

from .support import save_itk, save_nifti

ENDINGS = ["mha", "mhd", "nrrd", "nhdr"]


def agree(path: Path) -> Header:
    """Voxels, spacing and place as SimpleITK has them."""
    image = sitk.ReadImage(str(path))
    header, voxels = _read(path)
    expected = sitk.GetArrayFromImage(image).T.reshape(voxels.shape)
    assert voxels.dtype.kind == expected.dtype.kind
    assert (voxels == expected).all()
    known = [mm for mm in header.spacing if mm is not None]
    assert known == pytest.approx(image.GetSpacing()[: len(known)])
    if header.affine is not None:
        for index in ((0, 0, 0), (1, 2, 3)):
            more = (0,) * (image.GetDimension() - 3)
            left, back, head = image.TransformContinuousIndexToPhysicalPoint([float(n) for n in (*index, *more)])[:3]
            assert header.affine @ (*index, 1) == pytest.approx([-left, -back, head, 1])
    return header


def rotation(seed: int) -> np.ndarray:
    """A rotation, or one with a mirror, as a direction matrix."""
    found, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return found


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    times=st.integers(1, 3),
    dtype=st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]),
    ending=st.sampled_from(ENDINGS),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_type_and_direction(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    times: int,
    dtype: str,
    ending: str,
    packed: bool,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("itk") / f"v.{ending}"
    voxels = np.random.default_rng(seed).integers(0, 100, (*shape, times) if times > 1 else shape).astype(dtype)
    geometry: dict[str, Any] = {"spacing": (0.5, 0.75, 3), "origin": (-9, 4.5, 60), "direction": rotation(seed).ravel()}
    save_itk(path, voxels, packed, **(geometry if times == 1 else {}))
    header = agree(path)
    long = [size for k, size in enumerate(voxels.shape) if any(n > 1 for n in voxels.shape[k:]) or k < 2]
    if not header.colour:
        assert header.shape == tuple(long)
    if times == 1:
        assert header.orientation
        assert header.spacing == pytest.approx((0.5, 0.75, 3))


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_middle_lies_where_the_reference_puts_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v.{ending}"
    save_itk(path, np.zeros((5, 7, 9), np.int16), direction=rotation(3).ravel(), origin=(1, 2, 3), spacing=(1, 2, 4))
    left, back, head = sitk.ReadImage(str(path)).TransformContinuousIndexToPhysicalPoint((2.0, 3.0, 4.0))
    assert centre(path) == pytest.approx([-left, -back, head])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_grey_values_and_masks_have_the_rules_of_volumes(tmp_path: Path, ending: str, packed: bool) -> None:
    rng = np.random.default_rng(0)
    grey, numbers = rng.integers(-900, 900, (12, 9, 5)).astype(np.int16), rng.integers(0, 3, (12, 9, 5)).astype("u1")
    same = save_nifti(tmp_path / "v.nii", grey)
    path = save_itk(tmp_path / f"v.{ending}", grey, packed, spacing=(1, 1, 2))
    assert (read_volume(path) == read_volume(same)).all()
    mask = save_itk(tmp_path / f"m.{ending}", numbers, packed, spacing=(1, 1, 2))
    assert (read_labels(mask, Coding(3)) == numbers).all()
    with pytest.raises(DataError, match=f"m.{ending}: mask with grey values"):
        read_labels(mask, Coding(2))
    frame = Frame("z", 2)
    assert (plane_image(path, frame, 1)[..., 0] == read_volume(path)[:, :, 2].T).all()
    assert (plane_mask(mask, frame, Coding(3)) == numbers[:, :, 2].T).all()
    with pytest.raises(DataError, match="holds 12 x 9 x 5 voxels, but one plain image is meant"):
        plane_image(path, None, 1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_pictures_in_colour(tmp_path: Path, ending: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    path = save_itk(tmp_path / f"c.{ending}", colours, vector=True)
    found = planes(path)
    assert found.frames is None
    assert (found.width, found.height) == (8, 6)
    assert (plane_image(path, None, 3) == colours.swapaxes(0, 1)).all()
    luma = plane_image(path, None, 1)[..., 0]
    assert luma == pytest.approx(colours.swapaxes(0, 1) @ [0.299, 0.587, 0.114], abs=1)
    with pytest.raises(DataError, match="a mask in colour"):
        plane_mask(path, None)
    deep = save_itk(tmp_path / f"d.{ending}", colours.astype(np.uint16), vector=True)
    with pytest.raises(DataError, match=f"d.{ending}: "):
        planes(deep)


def test_three_planes_of_8_bits_are_the_colours_of_a_picture(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    path = save_itk(tmp_path / "c.mha", colours)
    assert (plane_image(path, None, 3) == colours.swapaxes(0, 1)).all()
    for geometry in ({"spacing": (1, 1, 4)}, {"origin": (0, 0, 2)}, {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}):
        volume = save_itk(tmp_path / "v.mha", colours, **geometry)
        assert len(planes(volume).frames or ()) == 3
    mask = save_itk(tmp_path / "masks" / "m.mha", colours // 255)
    assert planes(mask, mask=True).frames == planes(volume).frames
    assert plane_mask(mask, Frame("z", 1)).shape == (6, 8)


BIG = np.arange(24, dtype=">i2").reshape(2, 3, 4)
PACKED = zlib.compress(BIG.tobytes())
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
META_VARIANTS = [
    ("ElementByteOrderMSB = True\nElementSize = 2 3 4\nPosition = 1 2 3\nElementDataFile = LOCAL\n", BIG.tobytes()),
    ("BinaryDataByteOrderMSB = True\nElementSpacing = 2 3 4\nElementDataFile = v.raw\n", None),
    ("ElementByteOrderMSB = True\nHeaderSize = 7\nElementDataFile = v7.raw\n", None),
    ("ElementByteOrderMSB = True\nHeaderSize = -1\nElementDataFile = v7.raw\n", None),
    ("BinaryDataByteOrderMSB=True\nComment = a = b\nElementDataFile=LOCAL\n", BIG.tobytes()),
    ("BinaryDataByteOrderMSB = T\nBinaryData = 1\nElementDataFile = Local\n", BIG.tobytes()),
    ("BinaryDataByteOrderMSB = yes\nCompressedData = no\nElementDataFile = LOCAL\n", BIG.tobytes()),
    ("\nBinaryDataByteOrderMSB : True\nHeaderSize = 200\nElementDataFile = LOCAL\n", None),
    (
        f"CompressedData = True\nCompressedDataSize = {len(PACKED)}\nBinaryDataByteOrderMSB = True\n"
        "TransformMatrix = 0 1 0 1 0 0 0 0 -1\n"
        "Offset = 1 2 3\nElementDataFile = LOCAL\n",
        PACKED,
    ),
]
NRRD = "NRRD0004\n# by hand\ntype: signed short int\ndimension: 3\nsizes: 4 3 2\nendian: big\nencoding: raw\n"
FOUR = NRRD.replace("3\nsizes: 4 3 2", "4\nsizes: 2 4 3 2")
PAIRS = "Space:=RAS\nEndian:=little\nByte Skip:=2\nType:=T2\nData File:=x\nk:=1\nk:=2: 3\n"
NRRD_VARIANTS = [
    (f"{PAIRS}space: left-posterior-superior\nspace directions: (2,0,0) (0,0,3) (0,4,0)\n\n", True),
    ("space dimension: 3\nspace directions: (2,0,0) (0,0,3) (0,4,0)\nspace origin: (1,2,3)\n\n", True),
    (
        'kinds: domain domain domain\nspace: RAS\nspace units: "mm" "mm" "mm"\n'
        "measurement frame: (1,0,0) (0,1,0) (0,0,1)\nspace directions: (2,0,0) (0,0,3) (0,4,0)\n\n",
        True,
    ),
    ("datafile: größe.raw\n", False),
    ("space: right-anterior-superior\nspace directions: (2,0,0) (0,0,3) (0,4,0)\nspace origin: (1,2,3)\n\n", True),
    ("space: LAS\nspace directions: (2,1,0) (0,0,3) (0,4,0)\nspace origin: (1,2,3)\n\n", True),
    ("spacings: 2 3 4\n\n", True),
    ("Segment0_Name:=lesion\n\n", True),
    ("datafile: v.raw\n", False),
    ("data file: v7.raw\nbyte skip: 7\n", False),
    ("data file: v7.raw\nbyteskip: -1\n", False),
]


@pytest.mark.parametrize(("lines", "data"), META_VARIANTS)
def test_metaimages_written_in_other_ways(tmp_path: Path, lines: str, data: bytes | None) -> None:
    (tmp_path / "v.raw").write_bytes(BIG.tobytes())
    (tmp_path / "v7.raw").write_bytes(b"7 bytes" + BIG.tobytes())
    path = tmp_path / ("v.mhd" if data is None and "LOCAL" not in lines else "v.mha")
    head = (META + lines).encode()
    if path.suffix == ".mha" and data is None:  # from byte 200 on
        data = bytes(200 - len(head)) + BIG.tobytes()
    path.write_bytes(head + (data or b""))
    header = agree(path)
    assert (header.affine is not None) == ("TransformMatrix" in lines)  # else the file does not say how it lies


@pytest.mark.parametrize(("lines", "inside"), NRRD_VARIANTS)
def test_nrrds_written_in_other_ways(tmp_path: Path, lines: str, inside: bool) -> None:
    for name in ("v.raw", "größe.raw"):
        (tmp_path / name).write_bytes(BIG.tobytes())
    (tmp_path / "v7.raw").write_bytes(b"7 bytes" + BIG.tobytes())
    path = tmp_path / ("v.nrrd" if inside else "v.nhdr")
    path.write_bytes((NRRD + lines).encode() + (BIG.tobytes() if inside else b""))
    header = agree(path)
    assert (header.affine is not None) == ("directions" in lines and "space: " in lines)


def test_words_of_a_nrrd_in_upper_case(tmp_path: Path) -> None:
    path = tmp_path / "v.nrrd"
    text = NRRD.replace("signed short int", "Short").replace("big", "BIG").replace("raw", "RAW")
    path.write_bytes(f"{text}Space: LPS\n\n".encode() + BIG.tobytes())
    agree(path)


@pytest.mark.parametrize("cut", [1, 4])
def test_a_packed_file_without_its_checksum(tmp_path: Path, cut: int) -> None:
    lines = f"CompressedData = True\nCompressedDataSize = {len(PACKED)}\nElementDataFile = LOCAL\n"
    (tmp_path / "v.mha").write_bytes((META + lines).encode() + PACKED[:-cut])
    with pytest.raises(DataError, match=r"v\.mha: truncated: its checksum"):
        read_volume(tmp_path / "v.mha")


@pytest.mark.parametrize("ending", ENDINGS[1::2])
def test_new_voxels_under_an_old_header_are_noticed(tmp_path: Path, ending: str) -> None:
    """By the store of decoded files and by the cache of a data set."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40, 30), dtype=np.uint8) for _ in range(2)]
    save_itk(tmp_path / "new" / f"a.{ending}", images[1])
    path = save_itk(tmp_path / "d" / "images" / f"a.{ending}", images[0])
    seen = []
    for _ in range(2):
        index = build_index(tmp_path / "d")
        cache = open_cache(index.root, index.records, 32, 1, 2, tmp_path / "cache")
        seen.append((plane_image(path, None, 1), np.array(cache.images[0])))
        shutil.copy(tmp_path / "new" / "a.raw", path.with_suffix(".raw"))
    for old, new in zip(*seen, strict=True):
        assert (old != new).any()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("v.mhd", META + "ElementDataFile = ../out.raw\n", "must lie in the folder of its header"),
        ("v.mhd", META + "ElementDataFile = {outside}\n", "must lie in the folder of its header"),
        ("v.mhd", META + "ElementDataFile = link.raw\n", "must lie in the folder of its header"),
        ("v.mhd", META + "ElementDataFile = LIST\na.raw\n", "several files"),
        ("v.mhd", META + "ElementDataFile = v%03d.raw 1 3 1\n", "several files"),
        ("v.mhd", META + "ElementDataFile = none.raw\n", "does not exist"),
        ("v.nhdr", NRRD + "data file: ../out.raw\n", "must lie in the folder of its header"),
        ("v.nhdr", NRRD + "data file: {outside}\n", "must lie in the folder of its header"),
        ("v.nhdr", NRRD + "data file: LIST\na.raw\n", "v.nhdr: "),
        ("v.nhdr", NRRD + "data file: v%03d.raw 1 3 1\n", "several files"),
        ("v.mha", META.replace("4 3 2", "4000000 3 2") + "ElementDataFile = LOCAL\n", "truncated"),
        ("v.mha", META.replace("4 3 2", "400000 300000 2") + "ElementDataFile = LOCAL\n", "claims 400000 x 300000"),
        ("v.mha", META.replace("4 3 2", "4 -3 2") + "ElementDataFile = LOCAL\n", "claims the dimensions"),
        ("v.mha", META.replace("SHORT", "STRING") + "ElementDataFile = LOCAL\n", "of a type that is not read"),
        ("v.mha", META + "BinaryData = False\nElementDataFile = LOCAL\n1 2 3", "as text"),
        ("v.mha", META + "HeaderSize = -9\nElementDataFile = LOCAL\n", "a HeaderSize of -9"),
        ("v.mha", "hello\n", "is not a MetaImage file"),
        ("v.nrrd", "hello\n", "is not a NRRD file"),
        ("v.nrrd", "", "is empty"),
        ("v.nrrd", NRRD.replace("raw", "bzip2") + "\n", "as its voxels are stored .*bzip2"),
        ("v.nrrd", NRRD.replace("signed short int", "block") + "\n", "as its voxels are stored .*block"),
        ("v.nrrd", NRRD.replace("4 3 2", "4 3 200000") + "\n", "more than the safe limit"),
        ("v.nrrd", NRRD + "kinds: vector domain domain\n\n", "one number a voxel"),
        (
            "v.nrrd",
            FOUR.replace("2 4 3 2", "4 3 2 3") + "kinds: domain domain domain vector\n\n",
            "one number",
        ),
        (
            "v.nrrd",
            FOUR + "space directions: none (1,0,0) (0,1,0) (0,0,1)\n\n",
            "one number a voxel",
        ),
        (
            "v.nrrd",
            FOUR.replace("4\nsizes: 2 4 3 2", "20000\nsizes: " + "1 " * 20000) + "\n",
            "its dimensions are 1 x 1 x",
        ),
        ("v.nrrd", NRRD.replace("endian: big\n", "") + "\n", "in which order the bytes"),
        ("v.nrrd", NRRD.replace("raw", "gzip") + "byte skip: -1\n\n", "behind 0 lines and -1 bytes"),
        ("v.nrrd", NRRD + "line skip: 2\n\n", "behind 2 lines"),
        ("v.nrrd", NRRD + "a:=" + "x" * 2**20 + "\n\n", "its header is longer"),
        ("v.mha", META.replace("4 3 2", "1 " * 200000) + "ElementDataFile = LOCAL\n", "truncated"),
        ("v.mha", META.replace("4 3 2", "4 3") + "ElementDataFile = LOCAL\n", "claims the dimensions 4 x 3; 3 of"),
        ("v.mha", "NDims = 2000000000\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n", "NDims = 2000000000"),
        ("v.mha", META.replace("SHORT", "\x1b[31m") + "ElementDataFile = LOCAL\n", r"\\x1b\[31M as text"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    outside = tmp_path / "out.raw"
    outside.write_bytes(BIG.tobytes())
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.raw").symlink_to(outside)
    path = folder / name
    path.write_text(text.replace("{outside}", str(outside)))
    with pytest.raises(DataError, match=reason) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ENDINGS[::2])
def test_a_checksum_that_is_wrong_and_voxels_too_many(tmp_path: Path, ending: str) -> None:
    path = save_itk(tmp_path / f"v.{ending}", np.random.default_rng(0).integers(0, 9, (9, 9, 9)), packed=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"abcd" if ending == "mha" else whole[:-8] + b"abcd" + whole[-4:])
    with pytest.raises(DataError, match="damaged or truncated"):
        read_volume(path)


def test_a_data_set_of_mixed_formats(tmp_path: Path) -> None:
    """Image as .mha, mask as .nrrd of the same geometry, or mirrored; and the sizes that the index gives."""
    grey = np.random.default_rng(0).integers(0, 900, (40, 30, 4)).astype(np.int16)
    mask = (grey > 600).astype(np.uint8)
    save_itk(tmp_path / "images" / "one.mha", grey, True, spacing=(0.5, 0.8, 3))
    save_itk(tmp_path / "masks" / "one.nrrd", mask, True, spacing=(0.5, 0.8, 3))
    named = build_index(tmp_path).records
    (tmp_path / "masks" / "one.nrrd").rename(tmp_path / "masks" / "one.seg.nrrd")  # as 3D Slicer calls it
    records = build_index(tmp_path).records
    assert [replace(r, masks=()) for r in records] == [replace(r, masks=()) for r in named]
    assert {r.masks for r in records} == {("masks/one.seg.nrrd",)}
    (tmp_path / "masks" / "one.seg.nrrd").rename(tmp_path / "masks" / "one.nrrd")
    assert [(r.id, r.width, r.height, r.spacing, r.slice_mm) for r in records] == [
        (f"one/z{z}", 40, 30, (0.8, 0.5), 3.0) for z in range(4)
    ]
    assert len({r.group for r in records}) == 1
    save_itk(tmp_path / "masks" / "one.nrrd", mask, spacing=(0.5, 0.8, 3), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(DataError, match="is stored LPS, masks/one\\.nrrd RPS"):
        build_index(tmp_path)


def test_headers_say_what_they_do_not_know(tmp_path: Path) -> None:
    path = tmp_path / "v.mha"
    lines = "ElementSpacing = 0 nan 2\nElementDataFile = LOCAL\n"
    path.write_bytes((META + lines).encode() + BIG.tobytes())
    assert read_header(path).spacing == (None, None, 2.0)
    assert read_header(path).orientation is None
