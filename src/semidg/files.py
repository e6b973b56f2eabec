"""Writing files so that a reader never sees half of one, and folders so that one process at a time writes there."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semidg.errors import RunError, SemidgError

#: Names of what ``atomic_path`` writes before it takes its own.
PART = re.compile(r"\..*\.[0-9a-f]{16}\.part")


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes the name, on any failure it is removed.

    durable: wait until the disk has the content, so that not even a power failure can leave an empty file; that takes
    milliseconds, which thousands of files that can be made again need not spend. Raises SemidgError naming the file
    where the disk is full or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = os.fstat(descriptor).st_mode & 0o777  # that of any new file, which who writes it may change
        os.close(descriptor)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what ``atomic_path`` has left in a folder in which nobody else writes, where it was killed as it wrote."""
    for path in folder.glob(".*.part"):
        if PART.fullmatch(path.name) and path.is_file():
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write bytes atomically; durable: see ``atomic_path``."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_error(path: Path, error: OSError) -> SemidgError:
    """A one-line error for a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SemidgError(f"{path}: the disk is full; free some space or choose another folder with --out")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SemidgError(f"{path}: may not be written ({error.strerror}); choose another folder with --out")
    return SemidgError(f"{path}: cannot be written ({error.strerror or error})")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is none or it cannot be read."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


@contextmanager
def locked(folder: Path, who: str) -> Iterator[int | None]:
    """Hold FOLDER/.lock and give its file number, for children to inherit: the lock lasts as long as any of them.

    Raises RunError, which says that ``who`` works there, where another process holds it. None where there are no such
    locks.
    """
    try:
        import fcntl
    except ImportError:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{folder}: {who} works there; wait until it ends, or choose another --out") from error
        except OSError:  # a network file system without locks
            yield None
            return
        yield file.fileno()
