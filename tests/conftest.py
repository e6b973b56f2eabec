"""Shared fixtures: a small phantom, a tiny configuration, and one thread (the tests measure no time)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from semidg.config import ExperimentConfig
from tests_support import tiny_config

settings.register_profile("semidg", deadline=None)  # the first example may have to import something
settings.load_profile("semidg")
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
