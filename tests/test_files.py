"""Files appear whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from semidg.errors import SemidgError
from semidg.files import atomic_path, write_bytes


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_has_the_permissions_of_any_new_one_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "größe 漢.png"
    before = os.umask(0o027)
    try:
        write_bytes(path, b"first", durable=durable)
        with atomic_path(path, durable=durable) as temporary:
            temporary.unlink()
            temporary.write_bytes(b"second")  # as a library does that writes a file of its own
            temporary.chmod(0o600)
            assert path.read_bytes() == b"first"
    finally:
        os.umask(before)
    assert path.read_bytes() == b"second"
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_interrupted_file_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(SemidgError, match=r"a/b: cannot be written"):
        write_bytes(tmp_path / "a" / "b", b"")
