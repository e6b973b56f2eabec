"""``semidg predict --executor ray``: images a second of two workers of one core each over those of one.

A Ray cluster on this machine, started for the benchmark and warm: its workers have loaded the libraries and the model,
which a worker keeps from shard to shard. Both sides predict the same files in the same shards, in alternation. Beside
it stands the same ratio of the networks alone, without Ray, files and pictures.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import Figure, alternate, figure
from benchmarks.predict import BATCH, copy_images, write_model
from semidg.data.phantom import write_phantom
from semidg.errors import ConfigError
from semidg.experiment.bundle import load_bundle, to_inference
from semidg.experiment.device import usable_cores
from semidg.experiment.ray_tasks import RayTasks
from semidg.networks.ensemble import Ensemble
from semidg.report.prediction_jobs import find_jobs
from semidg.report.prediction_shards import Settings, predict_shards
from semidg.report.predictor import Options

TARGET = 1.7


def figures(quick: bool) -> list[Figure]:
    """The speed of two workers over that of one, and what the machine gives two processes at all.

    quick: a few small images, to see that it runs. Raises ConfigError without ray.
    """
    different, count, rounds, shard, steps = (4, 8, 1, 2, 1) if quick else (40, 512, 5, 32, 40)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_phantom(folder / "phantom", images_per_scanner=different // 4, size=64 if quick else 192)
        images = sorted((folder / "phantom").glob("*/images/*.png"))
        copy_images(images, folder / "pictures", count)
        write_model(folder / "model.safetensors", images, steps)
        ray = start()
        try:
            one, two = (partial(predict, folder, workers, shard) for workers in (1, 2))
            two()  # each worker loads the libraries and the model
            ratios, *seconds = alternate(one, two, rounds)
        finally:
            ray.shutdown()
        limit = in_processes(folder / "model.safetensors", 4 if quick else 32, rounds)
    details = {
        "images": count,
        "images a shard": shard,
        "cores": usable_cores(),
        "rounds": rounds,
        "images a second": {
            f"{k} worker(s)": round(count / sorted(of)[len(of) // 2], 1) for k, of in enumerate(seconds, start=1)
        },
    }
    return [
        figure("two workers over one", ratios, target=TARGET, at_most=False, details=details),
        figure("the networks alone in two processes over one", limit, at_most=False),
    ]


@functools.cache
def loaded(model: Path) -> tuple[Ensemble, torch.Tensor]:
    """The networks of a model, on one thread, and a batch for them; once in each process."""
    torch.set_num_threads(1)
    bundle = load_bundle(model)
    batch = torch.rand(BATCH, bundle.channels, bundle.size, bundle.size)
    return to_inference(bundle.ensemble, torch.device("cpu")), batch.contiguous(memory_format=torch.channels_last)


def forward(model: Path, _: int) -> None:
    """One batch through the networks alone."""
    ensemble, batch = loaded(model)
    with torch.inference_mode():
        ensemble.predict(batch)


def in_processes(model: Path, batches: int, rounds: int) -> list[float]:
    """What this machine gives a second process: speed of the networks in two processes over that in one, a round each.
    Below 2 it is memory, cache or clock that the cores share, which no scheduler gives back."""
    work, context = partial(forward, model), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as two, ProcessPoolExecutor(1, context) as one:
        ratios, _, _ = alternate(
            lambda: list(one.map(work, range(batches))), lambda: list(two.map(work, range(batches))), rounds
        )
    return ratios


def start() -> Any:
    """The module ray, with two workers of one core each on this machine, whatever RAY_ADDRESS says."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "the benchmark of Ray workers needs the extra cluster: pip install 'semidg[cluster]'"
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    return ray


def predict(folder: Path, workers: int, shard: int) -> None:
    """Predict all pictures by so many workers at once."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    settings = Settings(folder / "model.safetensors", Options(threads=1))
    jobs = find_jobs([folder / "pictures"], out)
    found = predict_shards(settings, jobs, out, run=RayTasks(workers), size=shard)
    assert found.files == len(jobs), found.problems
