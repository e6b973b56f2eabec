"""How the cost of a run grows: with the number of images, with their size, and with the batch.

    python -m benchmarks.growth [--large]

Number: index (every file decoded and checked; of it the search for near-duplicates), cache, split and the first
training step of the preset busi-lite, each with its time and its peak memory, in a process of its own for each number.
The images are files of 64 x 64 pixels, all different: ellipses in tissue and speckle. Exponents are slopes of log time
over log number. --large: also 100,000 images. Size and batch: time and peak memory of a training step. The memory of
Python and of the libraries is in every peak, and said beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.figure import Figure, figure
from semidg.config import ExperimentConfig, TrainerConfig, load_config, parse_config
from semidg.data import index
from semidg.data.dataset import open_cache
from semidg.data.splits import make_split
from semidg.experiment.device import keep_freed_memory, set_threads
from semidg.experiment.loaders import training_loader
from semidg.methods import make_method
from semidg.report.png import encode_png
from semidg.types import Batch, Progress

SIDE = 64
MASKS = 64  # different masks, each under many names
STAGES = ("index", "search in it", "cache", "split", "first step")


def figures(quick: bool, large: bool = False) -> list[Figure]:
    """Exponents of time by number of images for each stage, and by pixels and by images of a step, with the times and
    peaks they are fitted to. quick: few and small images, to see that it runs."""
    counts = [100, 300] if quick else [1000, 3000, 10_000, *([100_000] if large else [])]
    sizes, batches = ([32, 64], [1, 2]) if quick else ([64, 96, 128, 192, 256], [4, 8, 16])
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "all", counts[-1])
        found = []
        for count in counts:
            part = Path(folder) / "all" if count == counts[-1] else link_images(Path(folder) / "all", count)
            found.append(_in_a_process("--measure", str(part)))
    result = []
    for stage in STAGES:
        seconds = [one[stage]["seconds"] for one in found]
        details = {"images": counts, "seconds": seconds, "peak MB": [one[stage]["peak"] for one in found]}
        details["libraries MB"] = found[0]["libraries"]
        result.append(figure(f"{stage}: exponent of time by images", [exponent(counts, seconds)], details=details))
    of = [(size, batches[0]) for size in sizes], [(sizes[len(sizes) // 2], batch) for batch in batches]
    for name, values, settings in (("pixels", [size**2 for size in sizes], of[0]), ("batch", batches, of[1])):
        steps = [_in_a_process("--step", *map(str, one)) for one in settings]
        seconds = [one["seconds"] for one in steps]
        details = {
            "side and labelled (and as many unlabelled) images": settings,
            "seconds": seconds,
            "peak MB": [one["peak"] for one in steps],
            "libraries MB": steps[0]["libraries"],
            "threads": steps[0]["threads"],
        }
        result.append(figure(f"step: exponent of time by {name}", [exponent(values, seconds)], details=details))
    return result


def exponent(counts: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the least-squares line through log seconds over log counts."""
    return float(np.polyfit(np.log(counts), np.log(np.maximum(seconds, 1e-6)), 1)[0])


def measure(root: Path) -> dict[str, Any]:
    """The stages of one data set: seconds, and peak memory of this process in MB."""
    result: dict[str, Any] = {"libraries": _peak()}
    search, spent = index.twin_groups, []

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        groups = search(*arguments)
        spent.append(time.perf_counter() - start)
        return groups

    def stage(name: str, work: Callable[[], Any]) -> Any:
        _forget_peak()
        start = time.perf_counter()
        found = work()
        result[name] = {"seconds": round(time.perf_counter() - start, 4), "peak": _peak()}
        return found

    index.twin_groups = timed
    indexed = stage("index", lambda: index.build_index(root, "folders"))
    index.twin_groups = search
    result["search in it"] = {"seconds": round(spent[0], 4), "peak": result["index"]["peak"]}
    config = configuration(SIDE, 4, root)
    cache = stage("cache", lambda: open_cache(indexed.root, indexed.records, SIDE, 3, folder=root / "cache"))
    split = stage("split", lambda: make_split(indexed.records, config.data.split, config.labelled, config.seed))
    set_threads(TrainerConfig())
    method = make_method(config).to(memory_format=torch.channels_last).train()

    def first() -> None:
        batch = next(iter(training_loader(cache, split, config)))
        torch.stack(list(method.losses(batch, Progress(0, 10)).values())).sum().backward()

    stage("first step", first)
    return result


def step(size: int, batch: int) -> dict[str, Any]:
    """Median seconds of a training step on (batch labelled + batch unlabelled) images, and the peak memory in MB."""
    result: dict[str, Any] = {"libraries": _peak()}
    config = configuration(size, batch, None)
    set_threads(config.trainer)
    keep_freed_memory()
    method = make_method(config).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=1e-4, fused=True)
    images = [torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    domains, ids = torch.zeros(batch, dtype=torch.int64), tuple(map(str, range(batch)))
    masks = torch.zeros(batch, size, size, dtype=torch.int64)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    given = Batch(images[0], masks, images[1], domains, domains, ids, ids)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        torch.stack(list(method.losses(given, Progress(90, 100)).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(Progress(90, 100))
        seconds.append(time.perf_counter() - start)
    return result | {
        "seconds": round(statistics.median(seconds[1:]), 4),
        "peak": _peak(),
        "threads": torch.get_num_threads(),
    }


def configuration(size: int, batch: int, root: Path | None) -> ExperimentConfig:
    """busi-lite at another size and batch."""
    values = load_config("busi-lite").model_dump(mode="json")
    values["data"] |= {"root": root and str(root), "layout": "folders", "size": size, "balance": "none"}
    values["trainer"] |= {"batch_labelled": batch, "batch_unlabelled": batch}
    return parse_config(values, "benchmark")


def write_images(folder: Path, count: int) -> None:
    """``count`` images with masks in the folders layout, by as many processes as there are cores."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    for domain in range(4):
        for part in ("images", "masks"):
            (folder / f"scanner-{domain}" / part).mkdir(parents=True)
    for number in range(MASKS):
        centre = 0.3 + 0.4 * (number % 8) / 7, 0.3 + 0.4 * (number // 8) / 7
        inside = np.hypot(y - centre[0], x - centre[1]) < 0.15 + 0.01 * (number % 5)
        (folder / f"mask-{number}").write_bytes(encode_png(inside.astype(np.uint8) * 255))
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.map(partial(_write, folder=folder), range(count), chunksize=256)


def _write(number: int, folder: Path) -> None:
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.normal(110, 40, (9, 9)).astype(np.float32))
    tissue = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    grey = (tissue * generator.rayleigh(0.8, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)
    domain, name = folder / f"scanner-{number % 4}", f"{number:06}.png"
    (domain / "images" / name).write_bytes(encode_png(grey))
    os.link(folder / f"mask-{number % MASKS}", domain / "masks" / name)


def link_images(folder: Path, count: int) -> Path:
    """The first ``count`` of the images in a folder of their own."""
    part = folder.with_name(str(count))
    for path in sorted(folder.glob("*/*/*.png")):
        if int(path.stem) < count:
            target = part / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    return part


def _in_a_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.growth", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def _peak() -> int:
    """Peak memory of this process in MB, since ``_forget_peak`` where the system can tell."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3)
    except (OSError, StopIteration):
        unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, KiB elsewhere
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def main() -> None:
    """Measure and print JSON, a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)  # in the process of its own
    parser.add_argument("--step", type=int, nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))
    elif options.step is not None:
        print(json.dumps(step(*options.step)))
    else:
        for one in figures(options.quick, options.large):
            print(json.dumps(dataclasses.asdict(one)), flush=True)


if __name__ == "__main__":
    main()
