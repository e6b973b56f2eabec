"""Shared fixtures: a small phantom, a tiny configuration, and one thread (the tests measure no time)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def busi_root(request: pytest.FixtureRequest) -> Path:
    """The folder of the real BUSI data. Where SEMIDG_BUSI does not name it the test is skipped in a run of the whole
    suite, and fails in one that asks for these tests, ``-m busi``."""
    root = os.environ.get("SEMIDG_BUSI")
    if not root:
        # the one skip for want of data: the images may not be shipped, and no download is made without being asked
        missing = "set SEMIDG_BUSI to the folder of the real data"
        (pytest.fail if "busi" in request.config.option.markexpr else pytest.skip)(missing)
    assert Path(root).is_dir(), f"SEMIDG_BUSI = {root}: no such folder"
    return Path(root)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray cluster of two machines, each with room for one task."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def tiny(phantom: Path) -> ExperimentConfig:
    """A configuration that trains in seconds: a small encoder without weights, 32 x 32 pixels, six steps."""
    return tiny_config(phantom)
