"""Shared fixtures: a small phantom, a tiny configuration, and one thread (the tests measure no time)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from semidg.config import ExperimentConfig, parse_config

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["SEMIDG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scanners with six small images each."""
    from semidg.data.phantom import write_phantom

    root = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(root, images_per_scanner=6, size=64, seed=3)
    return root


@pytest.fixture
def tiny(phantom: Path) -> ExperimentConfig:
    """A configuration that trains in seconds: a small encoder without weights, 32 x 32 pixels, six steps."""
    return tiny_config(phantom)


def tiny_config(root: Path, **changes: object) -> ExperimentConfig:
    """The tiny configuration with top-level sections changed."""
    values: dict[str, object] = {
        "name": "tiny",
        "labelled": 0.4,
        "data": {"root": str(root), "size": 32, "channels": 1, "split": {"target": "delta", "validation": 0.2}},
        "network": {"encoder": "tu-mobilenetv3_small_050", "weights": "none", "atrous_rates": [1, 2, 3]},
        "method": {"name": "dual_level", "ramp": {"warmup": 0.0, "end": 0.5}},
        "trainer": {
            "max_steps": 6,
            "batch_labelled": 2,
            "batch_unlabelled": 2,
            "eval_every": 3,
            "checkpoint_every": 2,
            "log_every": 1,
            "accelerator": "cpu",
            "threads": 1,
        },
    }
    return parse_config(values | changes, "tests")
