"""Fixtures of the tests of this floor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semidg.data.index import Index, build_index


@pytest.fixture(scope="session")
def busi_index() -> Index:
    """The index of the real BUSI data; the test is skipped where SEMIDG_BUSI does not name its folder."""
    root = os.environ.get("SEMIDG_BUSI")
    if not root:
        pytest.skip("set SEMIDG_BUSI to the folder of the real data")
    return build_index(Path(root))
