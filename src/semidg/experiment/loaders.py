"""Training batches: a pure function of (seed, step), so that a resumed run sees what it would have seen."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from semidg.augmentation import spatial
from semidg.config import ExperimentConfig, SpatialConfig
from semidg.data.dataset import ImageCache
from semidg.data.splits import Split
from semidg.experiment.device import loader_workers
from semidg.types import Batch, Record

_PRIME = 1_000_003
_GRACE = 20  # seconds that a worker goes on after a SIGTERM


class Entry(NamedTuple):
    """A training image: its row in the cache, whether it is used flipped, the number of its domain, its id."""

    row: int
    flipped: bool
    domain: int
    id: str


class Draw(NamedTuple):
    """An entry in one epoch."""

    entry: Entry
    epoch: int


class Step(NamedTuple):
    """What one step of one rank trains on."""

    labelled: tuple[Draw, ...]
    unlabelled: tuple[Draw, ...]


def training_entries(records: Sequence[Record], split: Split, cache: ImageCache, balance: str) -> list[Entry]:
    """Entries of training records; with ``balance = flip`` those of every class but the largest also flipped."""
    training = [*split.labelled, *split.unlabelled]
    domains = {name: k for k, name in enumerate(sorted({r.domain for r in training}))}
    entries = [Entry(cache.row(r.id), False, domains[r.domain], r.id) for r in records]
    if balance == "flip":
        counts = Counter(r.class_name for r in training)
        largest = max(counts, key=lambda name: (counts[name], name))
        pairs = zip(records, list(entries), strict=True)
        entries += [e._replace(flipped=True) for r, e in pairs if r.class_name != largest]
    return entries


class StepSampler(Sampler[Step]):
    """The steps ``start`` to ``total`` of a run. Each stream is shuffled anew every epoch and never padded: an epoch
    ends inside a batch. The batch of the configuration is that of all ranks; a rank takes every ``world``-th image of
    it, so that an image belongs to one rank in an epoch."""

    def __init__(
        self,
        labelled: Sequence[Entry],
        unlabelled: Sequence[Entry],
        config: ExperimentConfig,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        trainer = config.trainer
        self.streams = ((labelled, trainer.batch_labelled), (unlabelled, trainer.batch_unlabelled))
        self.start, self.total, self.seed = start, trainer.max_steps, config.seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[Step]:
        orders: dict[tuple[int, int], list[int]] = {}
        for step in range(self.start, self.total):
            yield Step(*(self._draws(k, step, orders) for k in range(2)))

    def _draws(self, stream: int, step: int, orders: dict[tuple[int, int], list[int]]) -> tuple[Draw, ...]:
        entries, size = self.streams[stream]
        if not entries:
            return ()
        draws = []
        for position in range(step * size + self.rank, (step + 1) * size, self.world):
            epoch, place = divmod(position, len(entries))
            key = (stream, epoch)
            if key not in orders:
                for old in [k for k in orders if k[0] == stream and k[1] < epoch - 1]:
                    del orders[old]
                generator = torch.Generator().manual_seed((self.seed * _PRIME + epoch) * 2 + stream)
                orders[key] = torch.randperm(len(entries), generator=generator).tolist()
            draws.append(Draw(entries[orders[key][place]], epoch))
        return tuple(draws)


class StepDataset(Dataset[Batch]):
    """A step to its batch: cached images, one spatial draw a sample seeded by (run seed, epoch, record)."""

    def __init__(self, cache: ImageCache, config: SpatialConfig, seed: int) -> None:
        self.cache, self.config, self.seed = cache, config, seed

    def __getitem__(self, step: Step) -> Batch:
        labelled = [self._sample(draw) for draw in step.labelled]
        unlabelled = [self._sample(draw)[0] for draw in step.unlabelled]
        images = torch.stack([image for image, _ in labelled])
        return Batch(
            labelled=images,
            masks=torch.stack([mask for _, mask in labelled]),
            unlabelled=torch.stack(unlabelled) if unlabelled else images[:0],
            labelled_domains=torch.tensor([d.entry.domain for d in step.labelled]),
            unlabelled_domains=torch.tensor([d.entry.domain for d in step.unlabelled], dtype=torch.int64),
            labelled_ids=tuple(d.entry.id for d in step.labelled),
            unlabelled_ids=tuple(d.entry.id for d in step.unlabelled),
        )

    def _sample(self, draw: Draw) -> tuple[Tensor, Tensor]:
        entry = draw.entry
        image = torch.from_numpy(np.array(self.cache.images[entry.row])).permute(2, 0, 1)
        mask = torch.from_numpy(np.array(self.cache.masks[entry.row]))
        if entry.flipped:
            image, mask = image.flip(-1), mask.flip(-1)
        seed = ((self.seed * _PRIME + draw.epoch) * _PRIME + entry.row) * 2 + entry.flipped
        generator = torch.Generator().manual_seed(seed % (2**63 - 1))
        return spatial.apply(image, mask, spatial.sample_parameters(self.config, generator))


def training_loader(
    cache: ImageCache, split: Split, config: ExperimentConfig, start: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[Batch]:
    """The batches of the steps ``start`` to ``max_steps`` of one rank."""
    labelled = training_entries(split.labelled, split, cache, config.data.balance)
    unlabelled = training_entries(split.unlabelled, split, cache, config.data.balance)
    if config.method.name == "supervised":
        unlabelled = []
    workers = loader_workers(config.trainer)
    return DataLoader(
        StepDataset(cache, config.spatial, config.seed),
        batch_size=None,
        sampler=StepSampler(labelled, unlabelled, config, start, rank, world),
        num_workers=workers,
        pin_memory=torch.cuda.is_available() and config.trainer.accelerator in ("auto", "cuda"),
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_the_run,
    )


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and schedulers signal the whole group; the workers are needed until the run has written its checkpoint. A
    SIGTERM ends them later, which is how a loader ends those that do not hear it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE))
