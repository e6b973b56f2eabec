"""Statistics of domains against all pixels put together, and their distance against the plain transform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_support import audit, save, square, texture
from semidg.data.images import resize_image
from semidg.experiment.audit.cases import SIDE


def dft(grey: np.ndarray) -> np.ndarray:
    """Amplitudes in dB up to 2 cycles an image, by the sum itself: rows 0, 1, 2, -2, -1, columns 0, 1, 2."""
    small = resize_image(grey[..., None], SIDE)[..., 0] / 255
    place = np.arange(SIDE)
    found = np.zeros((5, 3))
    for i, row in enumerate((0, 1, 2, -2, -1)):
        for column in range(3):
            wave = np.exp(-2j * np.pi * (row * place[:, None] + column * place[None, :]) / SIDE)
            found[i, column] = 20 * np.log10(1 + abs((small * wave).sum()))
    return found


def test_statistics_and_distances(tmp_path: Path) -> None:
    images = {"a": [texture(k) for k in range(3)], "b": [texture(9 + k) // 2 for k in range(2)], "c": [texture(20)]}
    for domain, own in images.items():
        for number, image in enumerate(own):
            masks = () if domain == "b" else (square(side=16 + number),)
            save(tmp_path, f"{domain}/{number}", image, *masks)
    domains = audit(tmp_path).domains
    assert [(d.name, d.images, d.masks) for d in domains.table] == [("a", 3, 3), ("b", 2, 0), ("c", 1, 1)]
    for found in domains.table:
        pixels = np.concatenate([image.ravel() for image in images[found.name]]).astype(float)
        assert found.mean == pytest.approx(pixels.mean())
        assert found.deviation == pytest.approx(pixels.std())
        assert found.black == pytest.approx(np.mean(pixels < 3))
        expected = np.quantile(pixels, (0.05, 0.5, 0.95), method="inverted_cdf")
        assert (found.low, found.middle, found.high) == tuple(expected)
        assert (found.width, found.height) == (64, 48)
    assert domains.table[0].area == 17**2 / (48 * 64)
    assert domains.table[1].area is None

    spectra = {name: np.stack([dft(image) for image in own]) for name, own in images.items()}
    for i, one in enumerate("abc"):
        spread = np.sqrt(((spectra[one] - spectra[one].mean(0)) ** 2).mean())
        assert domains.spread[i] == pytest.approx(spread, abs=1e-4)
        for j, other in enumerate("abc"):
            gap = np.sqrt(((spectra[one].mean(0) - spectra[other].mean(0)) ** 2).mean())
            assert domains.distance[i, j] == pytest.approx(gap, abs=1e-4)


def test_images_weigh_the_same_whatever_their_size(tmp_path: Path) -> None:
    save(tmp_path, "a/0", np.full((10, 10), 100, np.uint8))
    save(tmp_path, "a/1", np.full((200, 300), 200, np.uint8))
    (found,) = audit(tmp_path).domains.table
    assert found.mean == pytest.approx(150)
    assert (found.width, found.height) == (155, 105)


def test_a_domain_of_nothing_usable_is_not_described(tmp_path: Path) -> None:
    save(tmp_path, "a/0", texture(0), square())
    Image.new("L", (64, 48)).save(tmp_path / "a" / "images" / "1.png")
    (tmp_path / "a" / "images" / "1.png").write_bytes(b"")
    assert [d.images for d in audit(tmp_path).domains.table] == [1]
    (tmp_path / "a" / "images" / "0.png").write_bytes(b"")
    found = audit(tmp_path)
    assert found.domains.table == ()
    assert found.domains.distance.shape == (0, 0)
    assert found.images == 2
    assert found.index.records == ()
