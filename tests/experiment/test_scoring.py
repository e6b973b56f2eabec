"""Scores of images and volumes from networks whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from semidg.data.dataset import ImageCache
from semidg.data.images import resize_image
from semidg.data.reading import record_image, record_mask
from semidg.errors import DataError
from semidg.evaluation.calibration import PixelSums
from semidg.evaluation.confidence import Calibration, prediction_scores
from semidg.evaluation.metrics import LESION_COUNTS, METRICS, MM_METRICS, case_metrics
from semidg.evaluation.predict import label_map, to_original
from semidg.experiment.scoring import Validation, score_records
from semidg.types import IGNORE_INDEX, Record
from volume_support import HEIGHT, SPACING, WIDTH, write_volumes

CPU = torch.device("cpu")
SIDE = 16


class Networks:
    """Two networks: one believes that bright is foreground, the other believes it less. Remembers its batches."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def predict_each(self, x: torch.Tensor) -> torch.Tensor:
        """(2, B, 2, S, S)."""
        self.seen.append(len(x))
        p = torch.stack([torch.sigmoid(12 * (x[:, 0] - 0.5)), torch.sigmoid(6 * (x[:, 0] - 0.45))])
        return torch.stack([1 - p, p], 2)


def small(root: Path, records: Sequence[Record]) -> Any:
    """A cache without files."""
    images = np.stack([resize_image(record_image(root, record, 1), SIDE) for record in records])
    rows = {record.id: row for row, record in enumerate(records)}
    return SimpleNamespace(images=images, row=rows.__getitem__)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Record, ...], ImageCache]:
    """Ten volumes of three to five planes."""
    root = tmp_path_factory.mktemp("scored")
    records = write_volumes(root, ("aster", "delta"))
    return root, records, small(root, records)


def expected_row(root: Path, records: Sequence[Record], cache: ImageCache) -> tuple[dict[str, float], torch.Tensor]:
    """A volume in one piece: metrics of the mean of the networks, and probabilities (2, D, S, S)."""
    x = torch.from_numpy(np.stack([cache.images[cache.row(r.id)] for r in records])).permute(0, 3, 1, 2) / 255
    mean = Networks().predict_each(x).mean(0)
    prediction = np.stack([label_map(to_original(p, HEIGHT, WIDTH)) for p in mean])
    truth = np.stack([record_mask(root, r) for r in records])
    return case_metrics(prediction, truth, spacing=SPACING), mean.transpose(0, 1)


def test_a_volume_is_one_row_with_three_dimensional_metrics(data: tuple[Path, tuple[Record, ...], ImageCache]) -> None:
    root, records, cache = data
    shuffled = [records[k] for k in np.random.default_rng(0).permutation(len(records))]
    networks = Networks()
    calibration = Calibration(intercept=0.1, slope=0.8)
    scores = score_records(networks, shuffled, cache, root, batch=7, calibration=calibration)  # type: ignore[arg-type]
    assert max(networks.seen) == 7  # a batch may hold planes of several volumes
    assert sum(networks.seen) == len(records)
    assert set(scores.tables) == {"mean", "network_0", "network_1"}
    table = scores.tables["mean"]
    assert len(table) == 10
    heads = ["id", "domain", "class", "group", "planes", "area"]
    assert list(table)[:6] == heads
    assert {*METRICS, *LESION_COUNTS, *MM_METRICS, "expected_dice"} <= set(table)
    for _, row in table.iterrows():
        own = [r for r in records if r.image == row["id"].replace("/", "/images/") + ".nii.gz"]
        assert row["planes"] == len(own)
        assert row["group"] == own[0].group
        expected, probabilities = expected_row(root, own, cache)
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        (score,) = prediction_scores(probabilities)
        assert score is not None
        assert row["expected_dice"] == pytest.approx(0.1 + 0.8 * score, abs=1e-6)
    assert scores.pixels is not None
    assert len(scores.pixels.brier[""]) == 10


def test_a_volume_is_scored_on_the_planes_that_are_there(data: tuple[Path, tuple[Record, ...], ImageCache]) -> None:
    root, records, cache = data
    own = [r for r in records if r.image == "aster/images/p2.nii.gz"]
    assert len(own) == 5
    kept = [own[0], own[1], own[3]]
    row = score_records(Networks(), kept, cache, root).tables["mean"].iloc[0]  # type: ignore[arg-type]
    assert (row["id"], row["planes"]) == ("aster/p2", 3)
    x = torch.from_numpy(np.stack([cache.images[cache.row(r.id)] for r in own])).permute(0, 3, 1, 2) / 255
    prediction = np.stack([label_map(to_original(p, HEIGHT, WIDTH)) for p in Networks().predict_each(x).mean(0)])[:4]
    truth = np.stack([record_mask(root, r) for r in own])[:4]
    truth[2] = IGNORE_INDEX  # what is not there is not known, and takes up its place
    expected = case_metrics(prediction, truth, spacing=SPACING)
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_images_and_volumes_together(
    data: tuple[Path, tuple[Record, ...], ImageCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, records, cache = data
    truths = {r.id: record_mask(root, r) for r in records}
    monkeypatch.setattr("semidg.experiment.scoring.record_mask", lambda root, record, classes: truths[record.id])
    single = [replace(records[0], frame=None, slice_mm=None), *records[3:]]
    mixed = score_records(Networks(), single, cache, root).tables["mean"]  # type: ignore[arg-type]
    assert mixed["planes"].tolist()[:2] == [1, 4]
    assert "hd95_mm" in mixed
    unknown = [single[0], *(replace(r, slice_mm=None) for r in single[1:])]
    assert "hd95_mm" not in score_records(Networks(), unknown, cache, root).tables["mean"]  # type: ignore[arg-type]
    plain = [replace(r, frame=None, slice_mm=None) for r in records[::5]]
    assert "planes" not in score_records(Networks(), plain, cache, root).tables["mean"]  # type: ignore[arg-type]


def test_validation_dice_is_that_of_volumes(data: tuple[Path, tuple[Record, ...], ImageCache]) -> None:
    root, records, cache = data
    tables = score_records(Networks(), records, cache, root).tables  # type: ignore[arg-type]
    dice = Validation(records, cache, root, 2).dice(Networks(), 6, CPU)  # type: ignore[arg-type]
    assert dice == pytest.approx({name: table["dice"].mean() for name, table in tables.items()})


def test_planes_of_a_volume_are_one_row_of_the_sums_of_pixels() -> None:
    generator = np.random.default_rng(5)
    p = torch.from_numpy(generator.dirichlet(np.ones(3), (4, 12, 10))).permute(0, 3, 1, 2).float()
    truth = np.kron(generator.integers(0, 3, (4, 3, 2)), np.ones((1, 4, 5), int)).astype(np.uint8)
    truth[1, :5] = IGNORE_INDEX
    by_plane, tall = PixelSums(Calibration(1.3)), PixelSums(Calibration(1.3))
    for k in range(4):
        by_plane.add(p[k], p[k].argmax(0).numpy(), truth[k], same_case=k > 0)
    high = torch.cat([*p], 1)  # the same pixels as one image; only its bands reach from one plane to the next
    tall.add(high, high.argmax(0).numpy(), np.concatenate(truth))
    one, other = (sums.summary(np.array(["a"]), 3) for sums in (by_plane, tall))
    for name in ("ece", "brier", "ece_uncalibrated", "brier_uncalibrated"):
        assert one[name]["value"] == pytest.approx(other[name]["value"])
    pd.testing.assert_frame_equal(*(pd.DataFrame(found["reliability"]) for found in (one, other)))


def test_a_case_without_a_known_pixel_is_named(
    data: tuple[Path, tuple[Record, ...], ImageCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, records, cache = data
    monkeypatch.setattr(
        "semidg.experiment.scoring.record_mask", lambda *_: np.full((HEIGHT, WIDTH), IGNORE_INDEX, np.uint8)
    )
    with pytest.raises(DataError, match="aster/p0: truth has no labelled pixel"):
        score_records(Networks(), records[:3], cache, root)  # type: ignore[arg-type]
