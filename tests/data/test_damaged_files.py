"""Files whose bytes were changed at random: each is read, or refused with an error that names it."""

from __future__ import annotations

import gzip
import resource
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semidg.data.frames import planes
from semidg.data.masks import Coding
from semidg.data.reading import plane_image, plane_mask
from semidg.errors import DataError

from .support import save, save_dicom, save_itk, save_nifti, square, texture

EACH = 84  # of each kind


def _originals(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    volume = rng.integers(-200, 900, (20, 15, 6)).astype(np.int16)
    pages = [Image.fromarray(texture(n)) for n in range(3)]
    pages[0].save(folder / "x.tif", save_all=True, append_images=pages[1:])
    return [
        save(folder / "x.png", texture(1, channels=3)),
        folder / "x.tif",
        save_dicom(
            folder / "x.dcm", volume.T.copy(), RescaleSlope=2, RescaleIntercept=-9, WindowCenter=40, WindowWidth=9
        ),
        save_nifti(folder / "x.nii", volume, (1, 1, 3)),
        save_nifti(folder / "x.nii.gz", volume, (1, 1, 3)),
        save_nifti(folder / "m.nii.gz", (volume > 0).astype(np.uint8), (1, 1, 3)),
        *(save_itk(folder / name, volume, name == "p.mha") for name in ("x.mha", "p.mha", "x.nrrd")),
    ]


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: bits turned, bytes overwritten, a piece cut out, put in, or doubled, the end cut off. Half of the
    changes lie in the first 400 bytes, where the headers are."""
    for _ in range(int(rng.integers(1, 5))):
        end = min(len(data), 400) if rng.random() < 0.5 else len(data)
        at = int(rng.integers(0, max(1, end)))
        length = int(rng.integers(1, 9)) if rng.random() < 0.8 else int(rng.integers(1, 200))
        new = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        match int(rng.integers(0, 6)):
            case 0:
                data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :] if data else data
            case 1:
                data = data[:at] + new + data[at + length :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + new + data[at:]
            case 4:
                data = data[:at] + data[at : at + length] + data[at:]
            case _:
                data = data[:at] if rng.random() < 0.2 else data[:at] + b"\xff" * length + data[at + length :]
    return data


def _outcomes(path: Path) -> list[str]:
    """What became of it as an image, and as a mask: of three classes, with one value too many in all but one file."""
    try:
        found = planes(path)
    except DataError as error:
        return [_checked(path, error)]
    frames = found.frames or (None,)
    outcomes = []
    for what, read in (
        ("image", lambda p, f: plane_image(p, f, 1)),
        ("mask", lambda p, f: plane_mask(p, f, Coding(3))),
    ):
        try:
            for frame in (frames[0], frames[-1]):
                assert read(path, frame).shape[:2] == (found.height, found.width)
            outcomes.append(f"{what} read")
        except DataError as error:
            outcomes.append(f"{what} {_checked(path, error)}")
    return outcomes


def _checked(path: Path, error: DataError) -> str:
    assert str(path) in str(error)
    assert "\n" not in str(error)
    return "refused"


@pytest.mark.timeout(120)
def test_750_damaged_files_are_read_or_refused_by_name(tmp_path: Path) -> None:
    warnings.simplefilter("ignore")  # pydicom and Pillow have much to say of such files
    outcomes: Counter[str] = Counter()
    files = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for original in _originals(tmp_path):
        whole, ending = original.read_bytes(), original.name.partition(".")[2]
        for number in range(EACH):
            rng = np.random.default_rng(number)
            if ending == "nii.gz" and number % 2:  # damage inside the packing, which a checksum would find
                data = gzip.compress(_damaged(gzip.decompress(whole), rng), 1)
            else:
                data = _damaged(whole, rng)
            path = tmp_path / f"damaged-{original.stem}-{number}.{ending}"
            path.write_bytes(data)
            outcomes.update(f"{original.name} {outcome}" for outcome in _outcomes(path))
            files += 1
    assert files >= 750
    for name in ("x.png", "x.tif", "x.dcm", "x.nii", "x.nii.gz", "m.nii.gz", "x.mha", "x.nrrd"):
        assert outcomes[f"{name} image read"] or name == "x.png"  # each of its pieces has a checksum
        assert outcomes[f"{name} refused"] + outcomes[f"{name} image refused"]
    assert outcomes["m.nii.gz mask read"]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024  # of kilobytes, on Linux
    assert grown < 2**30


def test_whole_files_are_read(tmp_path: Path) -> None:
    mask = save_nifti(tmp_path / "y.nii.gz", (np.arange(60).reshape(3, 4, 5) % 3).astype(np.uint8), (1, 1, 3))
    assert _outcomes(save(tmp_path / "y.png", square() // 255)) == ["image read", "mask read"]
    assert _outcomes(mask) == ["image read", "mask read"]
