"""Functions called in a process of their own, and the memory a process had at its peak.

A caller that has not imported PyTorch stays small, so that the child's peak is its own: Linux counts the memory of the
parent for a child that has just been forked.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def in_child(function: str, *arguments: Any) -> Any:
    """What ``module:function`` returns in a new Python, called with ``arguments``; both as JSON.

    Raises subprocess.CalledProcessError where it ends in an error, which it has printed.
    """
    with tempfile.TemporaryDirectory(prefix="semidg-benchmark-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.process", str(answer), function, json.dumps(arguments)]
        subprocess.run(command, check=True, cwd=ROOT)
        return json.loads(answer.read_text("utf-8"))


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (1e6 bytes), mapped files included."""
    try:
        return _status("VmHWM")
    except (OSError, LookupError):  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def forget_peak() -> None:
    """``peak_mb`` counts from now on, where the system can do that (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def mapped_mb() -> float | None:
    """Resident pages of mapped files now, in MB, which the system can drop at any time; None where it does not say."""
    try:
        return _status("RssFile")
    except (OSError, LookupError):
        return None


def _status(key: str) -> float:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    if found is None:
        raise LookupError(key)
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    """Call the function that the command line names, and write what it returns."""
    answer, function, arguments = sys.argv[1:]
    module, name = function.split(":")
    result = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    Path(answer).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main()
