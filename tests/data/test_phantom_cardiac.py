"""Hearts of the phantom: four classes that touch as they should, in files that hold class numbers and show colours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, label

from semidg.config_file import load_config
from semidg.data.index import build_index
from semidg.data.phantom import SCANNERS, write_phantom
from semidg.data.phantom_cardiac import CLASS_NAMES, PALETTE, simulate_heart
from semidg.data.reading import record_mask


@pytest.mark.parametrize("name", list(SCANNERS))
@pytest.mark.parametrize("seed", range(4))
def test_a_ring_of_muscle_lies_between_the_left_cavity_and_all_else(name: str, seed: int) -> None:
    image, mask, parameters = simulate_heart(SCANNERS[name], 96, np.random.default_rng(seed))
    assert image.shape == mask.shape
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    around = binary_dilation(mask == 1) & (mask != 1)
    assert set(np.unique(mask[around])) == {2}
    assert label(mask == 1)[1] == label(mask == 2)[1] == 1
    assert (binary_dilation(mask == 3) & (mask == 2)).any()  # the right cavity is a neighbour of the ring
    for number in (1, 2):  # wholly in the picture
        assert not (mask == number)[[0, -1]].any()
        assert not (mask == number)[:, [0, -1]].any()
    assert (mask == 3).mean() > 0.005
    grey = image.astype(float)
    assert grey[mask == 2].mean() > grey[mask == 1].mean() + 10  # muscle echoes, blood hardly
    assert parameters["heart"]["side"] in (-1, 1)


def test_the_same_state_is_the_same_heart_on_every_scanner() -> None:
    hearts = [simulate_heart(s, 48, np.random.default_rng(5))[2]["heart"] for s in SCANNERS.values()]
    assert all(heart == hearts[0] for heart in hearts)
    again = [simulate_heart(SCANNERS["delta"], 48, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(again[0][0], again[1][0])
    np.testing.assert_array_equal(again[0][1], again[1][1])


def test_files_hold_class_numbers_and_a_palette_and_the_preset_reads_them(tmp_path: Path) -> None:
    write_phantom(tmp_path / "hearts", 2, 48, anatomy="cardiac")
    description = json.loads((tmp_path / "hearts/phantom.json").read_text("utf-8"))
    assert (description["anatomy"], description["class_names"]) == ("cardiac", list(CLASS_NAMES))
    config = load_config("phantom-cardiac")
    assert config.network.names == CLASS_NAMES
    index = build_index(tmp_path / "hearts", classes=config.network.classes)
    assert len(index.records) == 8
    for record in index.records:
        assert set(np.unique(record_mask(index.root, record, 4))) == {0, 1, 2, 3}
        with Image.open(index.root / record.masks[0]) as stored:
            assert stored.mode == "P"
            assert stored.getpalette()[:12] == list(PALETTE)  # type: ignore[index]
    write_phantom(tmp_path / "hearts", 1, 48)  # an earlier phantom of either kind is replaced
    assert "anatomy" not in json.loads((tmp_path / "hearts/phantom.json").read_text("utf-8"))
