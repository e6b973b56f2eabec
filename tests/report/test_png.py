"""PNG files as Pillow reads them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semidg.errors import SemidgError
from semidg.report.png import encode_png, save_png


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB", "P"]), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(height: int, width: int, mode: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 256, (int(generator.integers(1, 257)), 3), dtype=np.uint8)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    array = generator.integers(0, len(colours) if mode == "P" else 256, shape, dtype=np.uint8)
    data = encode_png(array, colours if mode == "P" else None)
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", mode, (width, height))
        np.testing.assert_array_equal(np.asarray(picture), array)
        if mode == "P":
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colours[array])
    with Image.open(io.BytesIO(data)) as picture:
        picture.verify()  # the checksum of each chunk


def test_views_of_larger_arrays_are_written() -> None:
    large = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    for array in (large[::2, 3:20, :3], large[..., 0].T):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(array)))), array)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4, 0, 3), (4, 4, 1), (4, 4, 4), (4,), (1, 4, 4, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not"):
        encode_png(np.zeros(shape, np.uint8))


def test_a_palette_is_for_numbers() -> None:
    with pytest.raises(ValueError, match="palette"):
        encode_png(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="palette"):
        encode_png(np.zeros((4, 4), np.uint8), np.zeros((257, 3), np.uint8))


def test_png_goes_there_and_back_and_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path = tmp_path / "new" / "folder" / "a.png"
    save_png(picture, path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    with path.open("rb") as reader:  # one who reads the old file while the new one is written
        save_png(picture[..., 0], path)
        assert Image.open(reader).mode == "RGB"
    assert Image.open(path).mode == "L"
    with pytest.raises(ValueError, match="uint8"):
        save_png(picture / 255, path)  # type: ignore[arg-type]

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SemidgError, match=r"a\.png: the disk is full"):
        save_png(picture[:2], path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
