"""Every figure of speed and memory of this project.

    python -m benchmarks [NAME ...] [--quick] [--out FILE]
    python -m benchmarks --table

Each benchmark runs in a process of its own, one after the other: peak memory and threads of one do not touch another.
A line is printed for each figure. The results go to docs/results/performance.json, and from there into the tables of
docs/performance.md; benchmarks that were not run, and other processors, keep what they had. Leave the machine alone
meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.process import ROOT, in_child
from benchmarks.results import Entry, merge, read, render, target, to_json, value, verdict
from semidg.errors import SemidgError
from semidg.files import write_text

#: The benchmarks, modules beside this one with ``figures(quick)``, in the order in which they run.
BENCHMARKS = (
    "step",
    "reference",
    "averages",
    "convolutions",
    "waiting",
    "fourier",
    "loader",
    "profile",
    "memory",
    "evaluation",
    "size",
    "growth",
    "predict",
    "ray_workers",
)
RESULTS, PAGE = ROOT / "docs" / "results" / "performance.json", ROOT / "docs" / "performance.md"


def measured(name: str, quick: bool) -> dict[str, Any]:
    """The figures of a benchmark, and the threads and the processor it had, as JSON; called in a process of its own."""
    figures: list[Figure] = importlib.import_module(f"benchmarks.{name}").figures(quick)
    import torch  # now, not before: the processes that a benchmark starts would count it as their own memory

    return {"figures": to_json(figures), "threads": torch.get_num_threads(), "processor": processor()}


def run(name: str, quick: bool) -> Entry:
    """The entry of a benchmark, measured now. Raises subprocess.CalledProcessError where it fails."""
    before = _load()
    found = in_child("benchmarks.__main__:measured", name, quick)
    return found | {
        "quick": quick,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "load": None if before is None else [before, _load()],
    }


def processor() -> str:
    """Model and instructions of the processor; with family and model number, as a virtual machine may hide the name."""
    import torch  # where it is called it is there already

    from semidg.experiment.device import has_bf16

    try:
        said = dict(re.findall(r"^([\w ]+?)\s*: (.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE))
    except OSError:
        said = {}
    model = said.get("model name", "").strip() or platform.processor() or platform.machine()
    if "cpu family" in said:
        model += f" (family {said['cpu family']}, model {said['model']})"
    bf16 = " with bf16" if has_bf16(torch.device("cpu")) else ""
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}{bf16}"


def _load() -> float | None:
    """Average number of running processes in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@functools.cache  # once, before the results are written
def _commit() -> str | None:
    command = ["git", "-C", os.fspath(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def write_tables(results: Path = RESULTS, page: Path = PAGE) -> None:
    """Bring the tables of the page up to date."""
    write_text(page, render(page.read_text("utf-8"), read(results)))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small and few, to see that they run; writes nothing "
                        "unless --out is given")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the results go, another file than that of the "
                        "documentation, whose tables then stay as they are")  # fmt: skip
    parser.add_argument("--table", action="store_true", help="measure nothing; only make the tables of the page again")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.out is None and not options.quick:
        options.out = RESULTS
    if options.quick and options.out is not None and options.out.resolve() == RESULTS:
        parser.error("--quick measures nothing that belongs into the documentation; choose another --out")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; exit code 1 if a benchmark failed, whose old entry stays."""
    options = parse(arguments)
    failed = 0
    for name in () if options.table else options.names or BENCHMARKS:
        begun = time.monotonic()
        try:
            entry = run(name, options.quick)
        except subprocess.CalledProcessError as error:
            print(f"{name}: failed with exit code {error.returncode}", file=sys.stderr)
            failed = 1
            continue
        for one in entry["figures"]:
            found = Figure(**one)
            told = [text for text in (target(found), verdict(found)) if text]
            print(f"{name}: {found.name} = {value(found)}" + (f" [{', '.join(told)}]" if told else ""), flush=True)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        if options.out is not None:
            merge(options.out, name, entry)
    if options.out is not None and options.out.resolve() == RESULTS:
        write_tables()
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SemidgError as problem:
        sys.exit(f"benchmarks: error: {problem}")
