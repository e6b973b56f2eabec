"""Small data sets on disk for the tests of this floor."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from semidg.types import Record


def texture(seed: int, width: int = 40, height: int = 30, channels: int = 0) -> NDArray[np.uint8]:
    """Coarse noise that no other seed resembles, (height, width) or (height, width, channels)."""
    shape = (8, 6, channels) if channels else (8, 6)
    coarse = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: NDArray[np.generic], mode: str | None = None) -> Path:
    """Write an array as an image file, converted to ``mode``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def square(width: int = 40, height: int = 30, at: int = 5) -> NDArray[np.uint8]:
    """A mask of 0 and 255 with a 10 x 10 square whose corner is at (at, at)."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[at : at + 10, at : at + 10] = 255
    return mask


def make_busi(root: Path, benign: int = 4, malignant: int = 2, normal: int = 1) -> Path:
    """The BUSI layout, with 1-bit masks, black RGB masks for the normal class, and names with spaces and brackets."""
    for number, (name, count) in enumerate({"benign": benign, "malignant": malignant, "normal": normal}.items()):
        for i in range(1, count + 1):
            save(root / name / f"{name} ({i}).png", texture(100 * number + i))
            if name == "normal":
                save(root / name / f"{name} ({i})_mask.png", np.zeros((30, 40, 3), dtype=np.uint8))
            else:
                save(root / name / f"{name} ({i})_mask.png", square(), "1")
    return root


def make_folders(root: Path, domains: Sequence[str] = ("a", "b"), images: int = 3, unlabelled: int = 1) -> Path:
    """The folders layout: ``images`` with a mask and ``unlabelled`` without in each domain."""
    for number, domain in enumerate(domains):
        for i in range(images + unlabelled):
            save(root / domain / "images" / f"{i}.png", texture(1000 * (number + 1) + i))
            if i < images:
                save(root / domain / "masks" / f"{i}.png", square())
    return root


def record(id: str, domain: str = "a", class_name: str = "", group: str | None = None, labelled: bool = True) -> Record:
    """A record without files."""
    masks = (f"{id}_mask.png",) if labelled else ()
    return Record(id, f"{id}.png", masks, domain, class_name, id if group is None else group, 40, 30)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Inside the block a write beyond ``size`` bytes of a file fails with an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_nifti(path: Path, voxels: NDArray[np.generic], zooms: Sequence[float] = (1, 1, 1)) -> Path:
    """Write voxels as a NIfTI file whose axes run to the right, the front and the head (RAS)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.diag([*zooms[:3], 1.0]), dtype=voxels.dtype)
    image.header.set_zooms([*zooms, *[1.0] * voxels.ndim][: voxels.ndim])
    nib.save(image, path)
    return path


def save_itk(
    path: Path, voxels: NDArray[np.generic], packed: bool = False, vector: bool = False, **geometry: Sequence[float]
) -> Path:
    """Write voxels (X, Y, ...), with ``vector`` (X, Y, ..., C), as the MetaImage or NRRD file that the ending says, by
    SimpleITK. geometry: spacing, origin, direction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = tuple(range(voxels.ndim - vector))[::-1]
    image = sitk.GetImageFromArray(voxels.transpose(*axes, *([-1] if vector else [])), isVector=vector)
    for name, value in geometry.items():
        getattr(image, f"Set{name.title()}")([float(number) for number in value])
    sitk.WriteImage(image, str(path), packed)
    return path


def save_series(
    folder: Path,
    stack: NDArray[np.generic],
    uid: str = "1.2.3.4",
    each: dict[str, list[Any]] | None = None,
    **elements: Any,
) -> list[Path]:
    """Write slices (D, H, W) as files of one DICOM series, 3 mm apart along the head, the last one in the first file.

    elements: of all files. each: of them one by one. None: a file without it.
    """
    paths = []
    for number, pixels in enumerate(stack):
        own = {
            "SeriesInstanceUID": uid,
            "Modality": "MR",
            "ImagePositionPatient": [-10, -20, 5 + 3 * number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.5, 0.25],
            "InstanceNumber": number + 1,
            **elements,
            **{name: values[number] for name, values in (each or {}).items()},
        }
        path = folder / f"{len(stack) - number}.dcm"
        paths.append(save_dicom(path, pixels, **{name: value for name, value in own.items() if value is not None}))
    return paths


def save_dicom(path: Path, pixels: NDArray[np.generic], kind: str = "MONOCHROME2", **elements: Any) -> Path:
    """Write pixels (H, W), (F, H, W) or, for a kind of colour, (..., H, W, 3) as an uncompressed DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = kind in ("RGB", "YBR_FULL")
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    shape = pixels.shape[:-1] if colour else pixels.shape
    data.Rows, data.Columns = shape[-2:]
    if len(shape) == 3:
        data.NumberOfFrames = shape[0]
    data.SamplesPerPixel = 3 if colour else 1
    if colour:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = kind
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in elements.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    data["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    data.save_as(path, enforce_file_format=True)
    return path
