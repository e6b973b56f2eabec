"""The phantom: the folder it writes, its determinism, its physics, and that scanners differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from semidg.data import phantom
from semidg.data.phantom import SCANNERS, draw_lesion, simulate, write_phantom
from semidg.data.phantom_scanners import Grid, Scanner, Tissue, display, envelope, make_grid
from semidg.errors import ConfigError, DataError

NAMES = list(SCANNERS)
PLAIN = replace(SCANNERS["borea"], looks=1, noise_db=-200.0)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def homogeneous(grid: Grid, echo_db: float = 0.0, attenuation: float = 0.0) -> Tissue:
    shape = (grid.z.size, grid.x.size)
    return Tissue(np.full(shape, echo_db), np.full(shape, attenuation), np.zeros((1, shape[1])))


@pytest.fixture(scope="module")
def pictures() -> dict[str, list[tuple[np.ndarray, np.ndarray, dict]]]:
    return {name: [simulate(SCANNERS[name], 96, np.random.default_rng([7, n])) for n in range(12)] for name in NAMES}


# the folder


def test_layout(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_phantom(tmp_path / "p", 2, 48, seed=3, progress=lambda done, total: calls.append((done, total)))
    expected = {f"{n}/{part}/case_00{i}.png" for n in NAMES for part in ("images", "masks") for i in range(2)}
    assert set(files(tmp_path / "p")) == expected | {"phantom.json", "spacing.csv"}
    assert calls == [(n, 8) for n in range(1, 9)]
    description = json.loads((tmp_path / "p/phantom.json").read_text())
    assert (description["seed"], description["size"], list(description["scanners"])) == (3, 48, NAMES)
    assert description["scanners"]["aster"]["frequency_mhz"] == SCANNERS["aster"].frequency_mhz
    assert set(description["cases"]) == {f"{n}/case_00{i}" for n in NAMES for i in range(2)}
    for name in expected:
        with Image.open(tmp_path / "p" / name) as picture:
            assert picture.mode == "L"
            assert picture.width == 48
            if "/masks/" in name:
                assert set(np.unique(np.asarray(picture))) == {0, 255}
    assert list(tmp_path.iterdir()) == [tmp_path / "p"], "nothing is left beside the folder"


def test_more_images_keep_the_first(tmp_path: Path) -> None:
    write_phantom(tmp_path / "few", 1, 48, seed=5)
    write_phantom(tmp_path / "more", 3, 48, seed=5)
    write_phantom(tmp_path / "other", 1, 48, seed=6)
    few, more, other = (files(tmp_path / name) for name in ("few", "more", "other"))
    pngs = [name for name in few if name.endswith(".png")]
    assert all(few[name] == more[name] for name in pngs)
    assert not any(few[name] == other[name] for name in pngs)
    images = [content for name, content in more.items() if "/images/" in name]
    assert len(set(images)) == len(images), "no picture twice"


def test_replaces_a_phantom_and_an_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "p"
    out.mkdir()
    write_phantom(out, 2, 48)
    (out / "index.csv").write_text("made from the images that go")
    write_phantom(out, 1, 48)
    assert len(files(out)) == 2 * len(NAMES) + 2


@pytest.mark.parametrize("name", ["notes.txt", "phantom.json", "aster/images/case_000.png"])
def test_refuses_a_folder_that_is_not_a_phantom(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(DataError, match="not a phantom") as caught:
        write_phantom(tmp_path / "p", 1, 48)
    assert str(tmp_path / "p") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "p") == {name: b"{}"}


def test_refuses_a_phantom_with_something_of_the_users_in_it(tmp_path: Path) -> None:
    out = tmp_path / "p"
    write_phantom(out, 1, 48)
    (out / "aster/images/mine.png").write_bytes(b"x")
    before = files(out)
    with pytest.raises(DataError, match=r"aster/images/mine\.png"):
        write_phantom(out, 1, 48)
    assert files(out) == before


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_phantom(tmp_path / "link", 1, 48)
    write_phantom(tmp_path / "link", 2, 48)
    assert (tmp_path / "link").is_symlink()
    assert len(files(tmp_path / "real")) == 4 * len(NAMES) + 2


def test_refuses_a_file_and_values_out_of_range(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="not a folder"):
        write_phantom(tmp_path / "file", 1, 48)
    with pytest.raises(DataError, match="cannot write"):
        write_phantom(tmp_path / "file" / "below", 1, 48)
    for values, word in (((0, 48, 0), "images"), ((1, 8, 0), "size"), ((1, 48, -1), "seed")):
        with pytest.raises(ConfigError, match=word):
            write_phantom(tmp_path / "p", *values)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, earlier: bool
) -> None:
    if earlier:
        write_phantom(tmp_path / "p", 1, 48, seed=1)
    before = files(tmp_path)
    real, calls = simulate, []

    def failing(scanner: Scanner, size: int, rng: np.random.Generator) -> object:
        calls.append(1)
        if len(calls) == 6:
            raise error
        return real(scanner, size, rng)

    monkeypatch.setattr(phantom, "simulate", failing)
    with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt, match=r"No space left|^$"):
        write_phantom(tmp_path / "p", 2, 48)
    assert files(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == int(earlier)


def test_an_earlier_phantom_survives_a_failed_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantom(tmp_path / "p", 1, 48, seed=1)
    before, real = files(tmp_path), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DataError, match="Input/output error"):
        write_phantom(tmp_path / "p", 1, 48, seed=2)
    assert files(tmp_path) == before


# the pictures


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(NAMES), size=st.integers(32, 80), seed=st.integers(0, 2**32 - 1))
def test_any_picture(name: str, size: int, seed: int) -> None:
    image, mask, parameters = simulate(SCANNERS[name], size, np.random.default_rng(seed))
    again = simulate(SCANNERS[name], size, np.random.default_rng(seed))
    assert np.array_equal(image, again[0])
    assert np.array_equal(mask, again[1])
    assert parameters == again[2]
    assert image.dtype == mask.dtype == np.uint8
    assert image.shape == mask.shape
    assert image.shape[1] == size
    assert set(np.unique(mask)) == {0, 255}
    assert image.std() > 5
    assert json.loads(json.dumps(parameters))["lesion"]["radius_x"] == parameters["lesion"]["radius_x"]


@settings(max_examples=200, deadline=None)
@example(top=5.0, thickness=10.0, seed=170)
@given(top=st.floats(5, 10), thickness=st.floats(10, 18), seed=st.integers(0, 2**32 - 1))
def test_lesion_is_one_piece_within_every_field_of_view(top: float, thickness: float, seed: int) -> None:
    lesion = draw_lesion(top, top + thickness, np.random.default_rng(seed))
    for scanner in SCANNERS.values():
        grid = make_grid(scanner, 128)
        z = (np.arange(grid.height) + 0.5)[:, None] * grid.pixel_mm
        inside = lesion.distance(grid.x[:, grid.margin : grid.margin + 128], z) > 0
        assert 0.003 < inside.mean() < 0.3
        assert not inside[[0, -1]].any()
        assert not inside[:, [0, -1]].any()
        assert ndimage.label(inside, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_lesion_is_darker_than_its_surround(name: str, pictures: dict) -> None:
    contrast = []
    for image, mask, _ in pictures[name]:
        inside = mask > 0
        ring = ndimage.binary_dilation(inside, iterations=6) & ~ndimage.binary_dilation(inside, iterations=2)
        contrast.append(float(image[ring].mean() - image[inside].mean()))
    assert np.mean(contrast) > 10, "grey levels"
    assert np.mean(np.array(contrast) > 0) > 0.6, "but not so in every picture that darkness alone would do"


def test_the_same_patient_on_every_scanner() -> None:
    drawn = [simulate(scanner, 48, np.random.default_rng(4))[2] for scanner in SCANNERS.values()]
    assert all(d["lesion"] == drawn[0]["lesion"] and d["layers_mm"] == drawn[0]["layers_mm"] for d in drawn)


# the physics


def test_speckle_is_rayleigh_and_compounding_lowers_it() -> None:
    """Rayleigh: mean / standard deviation = sqrt(pi / (4 - pi)) = 1.913; two independent looks: sqrt(2) times that."""
    grid = make_grid(PLAIN, 256)
    one = envelope(PLAIN, grid, homogeneous(grid), np.random.default_rng(0))
    two = envelope(replace(PLAIN, looks=2), grid, homogeneous(grid), np.random.default_rng(0))
    rayleigh = np.sqrt(np.pi / (4 - np.pi))
    assert one.mean() / one.std() == pytest.approx(rayleigh, rel=0.03)
    assert two.mean() / two.std() == pytest.approx(rayleigh * np.sqrt(2), rel=0.03)
    assert np.mean(one**2) == pytest.approx(1, rel=0.05), "unit power, whatever the beam"


def test_attenuation_follows_frequency_and_depth() -> None:
    grid = make_grid(PLAIN, 192)
    power = np.mean(envelope(PLAIN, grid, homogeneous(grid, attenuation=0.6), np.random.default_rng(0)) ** 2, axis=1)
    slope = np.polyfit(grid.samples[10:-10, 0], 10 * np.log10(power[10:-10]), 1)[0]
    assert slope == pytest.approx(-2 * 0.6 * PLAIN.frequency_mhz / 10, rel=0.05), "dB/mm, there and back"


def test_beam_is_narrowest_at_the_focus() -> None:
    grid = make_grid(PLAIN, 256)
    field = envelope(PLAIN, grid, homogeneous(grid), np.random.default_rng(0))
    field = field - field.mean()
    neighbours = np.mean(field[:, 2:] * field[:, :-2], axis=1) / np.mean(field**2, axis=1)
    depth = grid.samples[:, 0]
    focus = neighbours[np.abs(depth - PLAIN.focus_mm) < 3].mean()
    assert focus < neighbours[depth < 4].mean() - 0.02
    assert focus < neighbours[np.abs(depth - 38) < 3].mean() - 0.02


def test_an_interface_is_bright_where_it_faces_the_probe() -> None:
    grid = make_grid(PLAIN, 192)
    x = grid.x[0]
    silent = homogeneous(grid, echo_db=-60)

    def brightness(slope: float) -> float:
        line = (20 + slope * x, np.ones_like(x))
        echo = envelope(PLAIN, grid, replace(silent, interfaces=(line,)), np.random.default_rng(0))
        return float(echo.max(axis=0)[grid.margin : -grid.margin].mean())

    assert brightness(0.0) > 3 * brightness(0.1)


def test_display_compresses_to_the_dynamic_range() -> None:
    """Without attenuation and sliders, an echo of -gain dB is white, one dynamic range below is black, half is half."""
    scanner = replace(
        PLAIN, assumed_attenuation=0.0, tgc_db=(0.0, 0.0), gain_db=-20.0, dynamic_range_db=60.0, gamma=1.0, black=0.0
    )
    grid = make_grid(scanner, 32)
    level = {}
    for decibel in (20, -10, -40, -60):
        picture = display(scanner, grid, np.full((grid.samples.size, grid.x.size), 10 ** (decibel / 20)))
        assert picture.min() == picture.max()
        level[decibel] = int(picture[0, 0])
    assert level == {20: 255, -10: pytest.approx(127.5, abs=1), -40: 0, -60: 0}


def test_scanners_differ_more_than_their_pictures(pictures: dict) -> None:
    """Low-frequency amplitude, the part that a Fourier view mixes: scanners are further apart than their pictures."""

    def spectrum(image: np.ndarray) -> np.ndarray:
        square = np.asarray(Image.fromarray(image).resize((96, 96), Image.Resampling.BILINEAR)) / 255
        low = np.abs(np.fft.fft2(square))[:3, :3]
        return np.log(low[[0, 0, 1, 2], [0, 1, 0, 0]])

    spectra = {name: np.array([spectrum(image) for image, _, _ in pictures[name]]) for name in NAMES}
    means = np.array([s.mean(axis=0) for s in spectra.values()])
    within = np.sqrt(np.mean([s.var(axis=0) for s in spectra.values()], axis=0))
    between = np.abs(means[:, None] - means[None]) / within
    pairs = between[np.triu_indices(len(NAMES), 1)].max(axis=1)
    assert (pairs > 1).all(), f"each pair apart by more than the spread within, in some frequency: {pairs}"
    target = between[-1, :-1].max(axis=1)
    assert (target > 1.5).all(), f"the last scanner most: {target}"
