from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semidg.data.images import read_image, read_mask, resize_image, resize_mask
from semidg.data.masks import Coding
from semidg.errors import DataError

from .support import save, square, texture


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_uint8_and_resembles_the_grey_original(tmp_path: Path, mode: str, channels: int) -> None:
    grey = texture(1)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = tmp_path / f"x.{'png' if mode in {'1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'} else 'tif'}"
    image.save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode

    pixels = read_image(path, channels)

    assert pixels.dtype == np.uint8
    assert pixels.shape == (30, 40, channels)
    assert pixels.flags.writeable
    if mode == "1":
        assert set(np.unique(pixels)) == {0, 255}
    else:
        assert np.abs(pixels[..., 0].astype(int) - grey).max() <= (0 if mode in {"L", "LA", "RGB", "RGBA"} else 3)


def test_colour_is_kept_in_three_channels_and_becomes_luma_in_one(tmp_path: Path) -> None:
    red = np.zeros((4, 5, 3), dtype=np.uint8)
    red[..., 0] = 200
    path = save(tmp_path / "red.png", red)
    assert (read_image(path, 3) == red).all()
    assert (read_image(path, 1) == round(0.299 * 200)).all()


def test_transparency_is_composited_on_black(tmp_path: Path) -> None:
    pixels = np.full((4, 5, 4), 200, dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[:2, :, 3] = 0
    path = save(tmp_path / "x.png", pixels)
    assert (read_image(path, 3)[:2] == 0).all()
    assert (read_image(path, 3)[2:] == 200).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 65535]], np.uint16), [0, 255]),
        (np.array([[0, 4095]], np.uint16), [0, 255]),
        (np.array([[0, 200]], np.uint16), [0, 200]),
        (np.array([[0, 512, 1023]], np.uint16), [0, 128, 255]),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 100.4, 255]], np.float32), [0, 100, 255]),
        (np.array([[-2, 0, 2]], np.float32), [0, 128, 255]),
        (np.array([[-3, -3]], np.int32), [0, 0]),
    ],
)
def test_deep_images_are_scaled_by_the_written_rule(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    path = save(tmp_path / "x.tif", values)
    assert read_image(path, 1)[0, :, 0].tolist() == expected


def test_nan_in_an_image_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.tif", np.array([[0, np.nan]], np.float32))
    with pytest.raises(DataError, match=r"x\.tif: holds NaN"):
        read_image(path, 1)


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(texture(1)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg", 1).shape == (30, 40, 1)


def _broken_files(folder: Path) -> dict[str, Path]:
    good = save(folder / "good.png", np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8))
    data = good.read_bytes()
    files = {
        "does not exist": folder / "missing.png",
        "is empty": folder / "empty.png",
        "not an image": folder / "text.png",
        "damaged or truncated": folder / "cut.png",
        "is a folder": folder / "folder.png",
    }
    files["is empty"].touch()
    files["not an image"].write_text("no image")
    files["damaged or truncated"].write_bytes(data[: len(data) // 2])
    files["is a folder"].mkdir()
    return files


def test_every_unusable_file_is_a_data_error_that_names_it(tmp_path: Path) -> None:
    for reason, path in _broken_files(tmp_path).items():
        for read in (lambda p: read_image(p, 3), lambda p: read_mask([p])):
            with pytest.raises(DataError, match=reason) as caught:
                read(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", texture(1))
    path.chmod(0)
    with pytest.raises(DataError, match=r"x\.png: may not be read"):
        read_image(path, 1)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [100, 1000])
def test_an_image_above_the_pixel_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = save(tmp_path / "x.png", texture(1))  # 1200 pixels: above the limit, and above twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"x\.png: claims .* pixels"):
        read_image(path, 1)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(texture(i)) for i in range(3)]
    frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"x\.tif: holds 3 frames"):
        read_image(tmp_path / "x.tif", 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_a_binary_mask_is_read_from_every_mode(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "m.png", square(), mode)
    mask = read_mask([path])
    assert mask.dtype == np.uint8
    assert (mask == square() // 255).all()


@pytest.mark.parametrize("value", [1, 7, 255])
def test_any_one_foreground_value_will_do(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / "m.png", square() // 255 * np.uint8(value))
    assert (read_mask([path]) == square() // 255).all()


def test_a_coloured_foreground_and_a_deep_mask_will_do(tmp_path: Path) -> None:
    red = np.zeros((30, 40, 3), dtype=np.uint8)
    red[..., 0] = square()
    deep = square().astype(np.uint16) * 257
    for path in (save(tmp_path / "red.png", red), save(tmp_path / "deep.png", deep)):
        assert (read_mask([path]) == square() // 255).all()


def test_a_palette_mask_counts_by_colour_and_by_number_where_all_colours_are_black(tmp_path: Path) -> None:
    for palette in ([0, 0, 0, 128, 0, 0], [0, 0, 0, 0, 0, 0]):
        image = Image.fromarray(square() // 255).convert("L")
        image.putpalette(palette)
        image.save(tmp_path / "m.png")
        assert (read_mask([tmp_path / "m.png"]) == square() // 255).all()


def test_an_empty_palette_mask_is_empty_wherever_black_stands_in_the_palette(tmp_path: Path) -> None:
    for entries, ground in (([255, 255, 255, 0, 0, 0], 1), ([0, 0, 0, 255, 255, 255], 0), ([0, 0, 0, 0, 0, 0], 0)):
        image = Image.fromarray(np.full((30, 40), ground, np.uint8)).convert("L")
        image.putpalette(entries)
        image.save(tmp_path / "m.png")
        assert not read_mask([tmp_path / "m.png"]).any(), entries


def test_a_lesion_on_a_transparent_ground_is_read_and_one_of_transparency_alone_refused(tmp_path: Path) -> None:
    pixels = np.full((30, 40, 4), 255, dtype=np.uint8)
    pixels[..., 3] = square()
    assert (read_mask([save(tmp_path / "m.png", pixels)]) == square() // 255).all()
    pixels[..., :3] = 0
    with pytest.raises(DataError, match="transparency only"):
        read_mask([save(tmp_path / "m.png", pixels)])


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (0, 200, 0), None])
def test_a_mask_that_jpeg_has_blurred_is_cut_at_half(
    tmp_path: Path, quality: int, colour: tuple[int, int, int] | None
) -> None:
    rows, columns = np.mgrid[:120, :160]
    true = ((rows - 60) / 40) ** 2 + ((columns - 70) / 50) ** 2 < 1
    pixels = true * np.uint8(255) if colour is None else true[..., None] * np.array(colour, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.jpg", quality=quality)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "m.jpg").convert("L")))) > 2  # it is blurred
    found = read_mask([tmp_path / "m.jpg"])
    wrong = found != true
    assert wrong.mean() < (0.001 if colour in ((255, 255, 255), None) else 0.02)  # colour has half the resolution
    assert not wrong[20:100, 60:80].any()


def test_a_jpeg_that_is_no_mask_of_two_values_is_refused(tmp_path: Path) -> None:
    Image.fromarray(texture(3)).save(tmp_path / "picture.jpg")
    classes = np.zeros((64, 64), np.uint8)
    classes[:20], classes[20:32] = 1, 2
    Image.fromarray(classes).save(tmp_path / "numbers.jpg", quality=100)
    third = np.zeros((64, 64), np.uint8)
    third[:20], third[20:26] = 255, 128
    Image.fromarray(third).save(tmp_path / "third.jpg")
    two, three, dark = (np.zeros((64, 64, 3), np.uint8) for _ in range(3))
    two[10:30, 10:30], two[40:60, 10:30] = (255, 0, 0), (0, 255, 0)
    three[10:40, 10:60], three[50:56, 50:56] = 255, 200
    dark[:] = 26
    dark[20:22, 5:60] = 255  # a contour drawn on a dark scan
    inverse = np.full((64, 64), 255, np.uint8)
    inverse[20:40, 20:40] = 200
    for name, pixels in {"two": two, "three": three, "dark": dark, "inverse": inverse}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg", quality=90)
    for name in ("picture", "numbers", "third", "two", "three", "dark", "inverse"):
        with pytest.raises(DataError, match=rf"{name}\.jpg: mask with grey values"):
            read_mask([tmp_path / f"{name}.jpg"])
    square = np.zeros((64, 64), np.uint8)
    square[10:40, 10:40] = 255
    Image.fromarray(square).save(tmp_path / "unknown.jpg", quality=50)
    with pytest.raises(DataError, match="mask with grey values"):  # a value to ignore cannot be told from blur
        read_mask([tmp_path / "unknown.jpg"], Coding(2, 255))


def test_an_empty_mask_is_a_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((30, 40, 3), dtype=np.uint8))
    assert not read_mask([path]).any()


def test_several_masks_are_united(tmp_path: Path) -> None:
    first, second = square(at=2), square(at=15)
    paths = [save(tmp_path / "a.png", first, "1"), save(tmp_path / "b.png", second, "RGB")]
    assert (read_mask(paths) == np.maximum(first, second) // 255).all()


def test_masks_of_different_sizes_are_refused(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.png", square()), save(tmp_path / "b.png", square(width=41))]
    with pytest.raises(DataError, match=r"b\.png: is 41 x 30, but a\.png is 40 x 30"):
        read_mask(paths)


@pytest.mark.parametrize("values", [[0, 128, 255], [1, 2], [254, 255]])
def test_grey_values_are_refused_with_the_values_and_the_mend(tmp_path: Path, values: list[int]) -> None:
    path = save(tmp_path / "m.png", np.array([values], dtype=np.uint8))
    with pytest.raises(
        DataError, match=rf"m\.png: mask with grey values \({', '.join(map(str, values))}\).*data\.mask_values"
    ):
        read_mask([path])


def test_class_numbers_are_read_and_checked(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
    path = save(tmp_path / "m.png", numbers)
    indexed = Image.fromarray(numbers)
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    indexed.save(tmp_path / "p.png")
    for file in (path, save(tmp_path / "rgb.png", numbers, "RGB"), tmp_path / "p.png"):
        assert (read_mask([file], Coding(3)) == numbers).all()
    with pytest.raises(DataError, match=r"m\.png: holds the values 0, 2, 4, but the classes are 0 to 3"):
        read_mask([save(tmp_path / "m.png", numbers * np.uint8(2))], Coding(4))


def test_two_class_files_may_not_contradict_each_other(tmp_path: Path) -> None:
    a = save(tmp_path / "a.png", np.array([[0, 1, 0]], dtype=np.uint8))
    b = save(tmp_path / "b.png", np.array([[0, 0, 2]], dtype=np.uint8))
    c = save(tmp_path / "c.png", np.array([[0, 2, 0]], dtype=np.uint8))
    assert read_mask([a, b], Coding(3)).tolist() == [[0, 1, 2]]
    with pytest.raises(DataError, match=r"c\.png: gives pixels another class than a\.png"):
        read_mask([a, c], Coding(3))


def test_resizing_keeps_grey_means_and_makes_no_new_mask_value() -> None:
    image = texture(3, 90, 60, channels=3)
    small = resize_image(image, 16)
    assert small.shape == (16, 16, 3)
    assert np.abs(small.mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 2
    assert resize_image(image[..., :1], 16).shape == (16, 16, 1)
    mask = resize_mask(np.random.default_rng(0).integers(0, 4, (60, 90), dtype=np.uint8) * np.uint8(60), 16)
    assert set(np.unique(mask)) <= {0, 60, 120, 180}
    assert mask.shape == (16, 16)


def test_resizing_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))[..., None]
    assert np.abs(resize_image(stripes, 8).astype(int) - 127).max() < 30
