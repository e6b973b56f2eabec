"""Fixtures of the tests of this floor."""

from __future__ import annotations

from pathlib import Path

import pytest

from semidg.data.index import Index, build_index


@pytest.fixture(scope="session")
def busi_index(busi_root: Path) -> Index:
    """The index of the real BUSI data."""
    return build_index(busi_root)
