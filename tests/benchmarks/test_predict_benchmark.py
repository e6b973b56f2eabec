"""The benchmarks of prediction and growth run; what they measure here is not looked at."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from benchmarks.pictures import write_images

from benchmarks import growth, predict, ray_workers, size


def test_predict_is_held_against_the_forward() -> None:
    found = predict.figures(quick=True)
    assert [one.name for one in found] == [
        "predict over forward",
        "masks alone over forward",
        "predict over folded forward",
        "masks alone over folded forward",
        "folded forward over forward",
    ]
    assert [one.target for one in found] == [predict.TARGET, *[None] * 4]
    assert all(one.median > 0 and not one.at_most for one in found)
    assert set(found[0].details["images a second"]) == {"forward", "folded forward", "predict", "masks"}


def test_two_ray_workers_are_held_against_one() -> None:
    pytest.importorskip("ray")
    found, limit = ray_workers.figures(quick=True)
    assert 0 < limit.median < 4
    assert found.target == ray_workers.TARGET
    assert found.median > 0


def test_growth_has_time_memory_and_an_exponent_for_each_stage() -> None:
    found = growth.figures(quick=True)
    columns = [f"{kind} at {count}" for kind in ("time", "peak") for count in (20, 40)] + ["exponent"]
    assert [one.name for one in found] == [f"{stage}: {column}" for stage in growth.STAGES for column in columns]
    assert all(math.isfinite(one.median) for one in found)
    assert all(one.median > 0 for one in found if "exponent" not in one.name)


def test_a_stage_finds_the_groups_of_the_pictures(tmp_path: Path) -> None:
    write_images(tmp_path / "data", 8, 256)
    write_images(tmp_path / "data", 20, 256, first=8)
    assert growth.measure(str(tmp_path), True)["groups"] == 18  # of 20 images two are twins


def test_sizes_and_batches_have_time_and_memory() -> None:
    found = {one.name: one.median for one in size.figures(quick=True)}
    assert {name.split(": ")[0] for name in found if name.endswith("peak")} == {
        "32 x 32, 1 + 1 images",
        "64 x 64, 1 + 1 images",
        "32 x 32, 2 + 2 images",
    }
    assert all(math.isfinite(value) for value in found.values())
