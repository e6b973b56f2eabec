"""Steps a second with the real loader against one batch that stays in memory.

Warm: the image cache is there; steps with the loader and with the batch in memory take turns in one training. Cold: the
first epoch, decoding of all images of 500 x 500 pixels with their masks included, from the steps measured warm.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure, figure
from benchmarks.pictures import write_images
from benchmarks.training import configure, first_batch, over_neighbours, seconds, train
from semidg.config import ExperimentConfig
from semidg.experiment.loaders import training_entries, training_loader
from semidg.experiment.prepare import Prepared, open_images, prepare
from semidg.types import Batch


class Turns:
    """A batch in memory and one of the loader by turns, ``rounds`` times, and the one in memory again."""

    def __init__(self, config: ExperimentConfig, prepared: Prepared, rounds: int) -> None:
        self.loader = training_loader(prepared.cache, prepared.split, config)
        self.batch, self.rounds = first_batch(config), rounds

    def __len__(self) -> int:
        return 2 * self.rounds + 1

    def __iter__(self) -> Iterator[Batch]:
        stream = iter(self.loader)
        for _ in range(self.rounds):
            yield self.batch
            yield next(stream)
        yield self.batch


def measure(config: ExperimentConfig, rounds: int) -> tuple[list[float], float, float]:
    """Steps a second with the loader over those without, a value a round; seconds of a step with and without it."""
    times = train(config, Turns(config, prepare(config), rounds + 1))[
        1:
    ]  # what is left begins and ends with a loader's
    loader, memory = times[::2], times[1::2]
    ratios = [1 / r for r in over_neighbours(loader, memory)]
    return ratios, statistics.median(loader), statistics.median(memory)


def cold(config: ExperimentConfig, with_loader: float, without: float, rounds: int) -> list[Figure]:
    """The same in the first epoch, until every unlabelled image was seen, with its decoding; and with indexing too."""
    prepared = prepare(config)
    entries = training_entries(prepared.split.unlabelled, prepared.split, prepared.cache, config.data.balance)
    steps = len(entries) / config.trainer.batch_unlabelled
    decoded, all_of_it = [], []
    for _ in range(rounds):
        assert config.data.cache is not None
        shutil.rmtree(config.data.cache)
        decoded.append(seconds(lambda: open_images(config, prepared.index)))
        shutil.rmtree(config.data.cache)
        all_of_it.append(seconds(lambda: prepare(config)))
    details = {"images": len(prepared.cache), "steps": steps, "decoding, s": statistics.median(decoded)}
    names = {"first epoch, decoding included": 0.85, "first epoch, indexing and decoding included": None}
    return [
        figure(f"{config.method.name}: {name}", [steps * without / (steps * with_loader + s) for s in spent],
               target=target, at_most=False, details=details)
        for (name, target), spent in zip(names.items(), (decoded, all_of_it), strict=True)
    ]  # fmt: skip


def figures(quick: bool) -> list[Figure]:
    """Warm for a short and two long steps of the preset, cold for its method."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "data", *((40, 64) if quick else (160, 500)))
        for method in ("supervised", "crosslight", "dual_level")[2 * quick :]:
            config = configure(folder, method, quick)
            ratios, with_loader, without = measure(config, 2 if quick else 25)
            found.append(figure(f"{method}: loader / memory", ratios, target=0.97, at_most=False,
                                details={"seconds a step": with_loader}))  # fmt: skip
        return found + cold(config, with_loader, without, 1 if quick else 3)
