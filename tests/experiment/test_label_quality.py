"""Scores of masks: what they compute, what they put below what, and which masks they may look at."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from semidg.data.index import Index, build_index, read_index
from semidg.data.lists import read_split
from semidg.errors import DataError, RunError
from semidg.experiment import label_quality
from semidg.experiment.label_quality import CREDIT, learnt, mask_quality, score_with_run, shortfall, surprise
from semidg.experiment.run import train
from semidg.types import IGNORE_INDEX
from tests_support import tiny_config

CPU = torch.device("cpu")
SIDE = 64


def disc(row: float, column: float, radius: float) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (np.hypot(rows - row, columns - column) <= radius).astype(np.uint8)


def expected(mask: NDArray[np.uint8], blur: float = 2.0, certain: float = 0.98) -> Tensor:
    """Probabilities of networks that see the lesion of a mask, with a soft border."""
    p = gaussian_filter(mask.astype(np.float64), blur) * certain + (1 - certain) / 2
    return torch.from_numpy(np.stack([1 - p, p])).float()


TRUE = disc(30, 30, 10)
WRONG = {
    "shifted": disc(30, 36, 10),
    "larger": disc(30, 30, 13),
    "smaller": disc(30, 30, 7),
    "of another image": disc(48, 15, 8),
    "emptied": np.zeros_like(TRUE),
    "full": np.ones_like(TRUE),
}


@pytest.mark.parametrize("certain", [0.98, 0.8])
@pytest.mark.parametrize("kind", WRONG)
def test_a_perfect_mask_scores_above_a_wrong_one(kind: str, certain: float) -> None:
    probabilities = expected(TRUE, certain=certain)
    assert mask_quality(probabilities, TRUE) > mask_quality(probabilities, WRONG[kind]) + 0.04


def test_an_empty_mask_is_right_where_nothing_is_expected() -> None:
    nothing = expected(np.zeros_like(TRUE), certain=0.9999)
    assert mask_quality(nothing, np.zeros_like(TRUE)) > 0.9
    assert mask_quality(nothing, TRUE) < 0.01


def test_a_worse_error_scores_lower() -> None:
    probabilities = expected(TRUE)
    scores = [mask_quality(probabilities, disc(30, 30 + shift, 10)) for shift in (0, 3, 6, 12)]
    assert scores == sorted(scores, reverse=True)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), sharp=st.sampled_from([0.5, 3.0, 40.0]))
def test_both_parts_are_their_equations_pixel_by_pixel(seed: int, classes: int, sharp: float) -> None:
    rng = np.random.default_rng(seed)
    probabilities = torch.softmax(torch.from_numpy(rng.normal(size=(classes, 8, 8)) * sharp), 0).float()
    mask = rng.choice([*range(classes), IGNORE_INDEX], (8, 8)).astype(np.uint8)
    p = probabilities.double().numpy()
    pixels = [(r, c) for r in range(8) for c in range(8) if mask[r, c] != IGNORE_INDEX]
    credit = CREDIT * 64
    unlikely = sum(-math.log(max(p[mask[i], *i], 1e-7)) for i in pixels)
    foreground = sum(int(mask[i] > 0) for i in pixels) + sum(p[k, *i] for i in pixels for k in range(1, classes))
    assert surprise(probabilities, mask) == pytest.approx(unlikely / (foreground + credit), rel=1e-6)

    def soft(labels: dict[tuple[int, int], int], k: int) -> float:
        inside = [i for i in pixels if labels[i] == k]
        both = len(inside) + sum(p[k, *i] for i in pixels)
        return float((2 * sum(p[k, *i] for i in inside) + credit) / (both + credit))

    given_labels = {i: int(mask[i]) for i in pixels}
    own = {i: int(np.argmax(p[:, i[0], i[1]])) for i in pixels}
    worst = max(max(0.0, soft(own, k) - soft(given_labels, k)) for k in range(1, classes))
    assert shortfall(probabilities, mask) == pytest.approx(worst, abs=1e-6)
    quality = mask_quality(probabilities, mask)
    assert 0 <= quality <= 1
    assert quality == pytest.approx(math.exp(-unlikely / (foreground + credit)) * (1 - worst), abs=1e-6)


def test_ignored_pixels_count_for_nothing() -> None:
    probabilities, mask = expected(TRUE), disc(30, 36, 10)
    ignored = np.where(mask != TRUE, IGNORE_INDEX, TRUE).astype(np.uint8)
    assert mask_quality(probabilities, ignored) >= mask_quality(probabilities, TRUE)
    everything = np.full_like(TRUE, IGNORE_INDEX)
    assert mask_quality(probabilities, everything) == 1


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the phantom."""
    folder = tmp_path_factory.mktemp("quality") / "a run"
    train(tiny_config(phantom), folder, score=None)
    return folder


@pytest.fixture(scope="module")
def index(phantom: Path) -> Index:
    return build_index(phantom)


def parts(run: Path, index: Index) -> dict[str, set[str]]:
    split = read_split(run / "split", read_index(run / "index.csv", index.root).records, index.root)
    return {name: {record.id for record in records} for name, records in split.parts().items()}


def test_masks_that_the_run_learnt_are_never_scored(run: Path, index: Index) -> None:
    told: list[tuple[str, int, int]] = []
    found = score_with_run(run, index, CPU, lambda *step: told.append(step))
    division = parts(run, index)
    ids = {quality.id for quality in found}
    assert ids.isdisjoint(division["labelled"])
    assert ids == {record.id for record in index.records} - learnt(run, index)
    assert learnt(run, index) == division["labelled"]
    assert [quality.id for quality in found] == [r.id for r in index.records if r.id in ids]
    for quality in found:
        part = quality.source.removesuffix(" part of a run")
        assert quality.id in division[part]
        assert quality.predicted.shape == (32, 32)
        assert quality.predicted.dtype == np.uint8
        assert 0 <= quality.score <= 1
    assert told[-1] == ("scoring with a run", len(found), len(found))


def test_a_twin_of_a_learnt_image_is_not_scored_either(run: Path, index: Index) -> None:
    division = parts(run, index)
    teacher, twin = min(division["labelled"]), min(division["test"])
    group = next(record.group for record in index.records if record.id == teacher)
    joined = [replace(r, group=group) if r.id == twin else r for r in index.records]
    other = replace(index, records=tuple(joined))
    assert twin in learnt(run, other)
    assert {q.id for q in score_with_run(run, other, CPU)} == {r.id for r in joined} - learnt(run, other)


def test_images_that_the_run_does_not_know_are_scored_and_those_without_a_mask_are_not(run: Path, index: Index) -> None:
    division = parts(run, index)
    known, bare = sorted(division["test"])[:2]
    records = []
    for record in index.records:
        if record.id == known:
            records.append(replace(record, id="new", group="new"))
        else:
            records.append(replace(record, masks=()) if record.id == bare else record)
    found = {q.id: q.source for q in score_with_run(run, replace(index, records=tuple(records)), CPU)}
    assert found["new"] == "no part of a run"
    assert bare not in found


def test_a_run_without_a_model_and_a_folder_without_a_run_are_named(
    run: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunError, match=r"not a run folder"):
        score_with_run(tmp_path, index, CPU)

    def missing(path: Path) -> None:
        assert path == run / "model" / "model.safetensors"
        raise RunError(f"{path}: no model here")

    monkeypatch.setattr(label_quality, "load_bundle", missing)
    with pytest.raises(RunError, match=r"model\.safetensors"):
        score_with_run(run, index, CPU)


def test_an_index_that_names_the_images_otherwise_is_refused(run: Path, phantom: Path, tmp_path: Path) -> None:
    """No mask that the run learnt is scored because its id is another one."""
    paths = sorted(phantom.rglob("images/*.png"))
    (phantom / "t.csv").write_text(
        "id,image\n" + "".join(f"n{k},{p.relative_to(phantom)}\n" for k, p in enumerate(paths))
    )
    try:
        other = build_index(phantom / "t.csv")
    finally:
        (phantom / "t.csv").unlink()
    with pytest.raises(DataError, match=r"none of the images that it learnt from.* has its id in this index"):
        learnt(run, other)


def test_the_twins_of_an_image_that_the_index_lacks_are_learnt_too(run: Path, index: Index) -> None:
    labelled = sorted(parts(run, index)["labelled"])
    lost = next(r for r in index.records if r.id == labelled[0])
    others = [r for r in index.records if r.id != lost.id and r.group == lost.group]
    less = replace(index, records=tuple(r for r in index.records if r.id != lost.id))
    assert learnt(run, less) == learnt(run, index) - {lost.id}
    assert {r.id for r in others if r.labelled} <= learnt(run, less)
