"""Batches are a pure function of (seed, step)."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.experiment.loaders import Entry, StepSampler, training_entries, training_loader
from semidg.experiment.prepare import Prepared, prepare
from tests_support import tiny_config

ENTRIES = [Entry(k, False, 0, f"image{k}") for k in range(7)]


@pytest.fixture(scope="module")
def prepared(phantom: Path) -> Prepared:
    return prepare(tiny_config(phantom))


@given(st.integers(0, 50), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_resumed_sampler_goes_on_where_it_stopped(seed: int, start: int) -> None:
    config = tiny_config(seed=seed, trainer={"max_steps": 40, "batch_labelled": 2, "batch_unlabelled": 3})
    whole = list(StepSampler(ENTRIES, ENTRIES, config))
    assert list(StepSampler(ENTRIES, ENTRIES, config, start)) == whole[start:]
    assert len(StepSampler(ENTRIES, ENTRIES, config, start)) == len(whole) - start


def test_every_image_is_used_once_an_epoch() -> None:
    config = tiny_config(trainer={"max_steps": 14, "batch_labelled": 3, "batch_unlabelled": 1})
    draws = [d for step in StepSampler(ENTRIES, ENTRIES, config) for d in step.labelled]
    assert len(draws) == 42
    assert set(Counter((d.entry.id, d.epoch) for d in draws).values()) == {1}
    assert {d.epoch for d in draws} == set(range(6))
    orders = [[d.entry.row for d in draws if d.epoch == e] for e in range(6)]
    assert len({tuple(o) for o in orders}) > 1  # shuffled anew


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_ranks_share_the_batch_and_an_image_belongs_to_one_rank_an_epoch(world: int, times: int, seed: int) -> None:
    trainer = {"max_steps": 9, "batch_labelled": 2 * world, "batch_unlabelled": times * world}
    config = tiny_config(seed=seed, trainer=trainer)
    ranks = [list(StepSampler(ENTRIES, ENTRIES, config, 0, rank, world)) for rank in range(world)]
    for step, whole in enumerate(StepSampler(ENTRIES, ENTRIES, config)):
        for kind in range(2):
            parts = [rank[step][kind] for rank in ranks]
            assert len({len(part) for part in parts}) == 1
            assert tuple(draw for row in zip(*parts, strict=True) for draw in row) == whole[kind]
    taken = [(draw.entry.id, draw.epoch) for rank in ranks for step in rank for draw in step.labelled]
    assert len(set(taken)) == len(taken)


def test_loader_repeats_and_keeps_labels_from_the_unlabelled(prepared: Prepared, phantom: Path) -> None:
    config = tiny_config(phantom)
    first, second = (list(training_loader(prepared.cache, prepared.split, config)) for _ in range(2))
    assert len(first) == 6
    labelled = {r.id for r in prepared.split.labelled}
    unlabelled = {r.id for r in prepared.split.unlabelled}
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.labelled, b.labelled)
        assert torch.equal(a.unlabelled, b.unlabelled)
        assert set(a.labelled_ids) <= labelled
        assert set(a.unlabelled_ids) <= unlabelled
        assert a.labelled.shape == (2, 1, 32, 32)
        assert a.masks.shape == (2, 32, 32)
    held_out = {r.id for r in (*prepared.split.test, *prepared.split.validation)}
    assert not held_out & (labelled | unlabelled)
    resumed = list(training_loader(prepared.cache, prepared.split, config, start=4))
    assert torch.equal(resumed[0].labelled, first[4].labelled)


def test_workers_give_the_same_batches(prepared: Prepared, phantom: Path) -> None:
    config = tiny_config(phantom)
    with_workers = config.model_copy(update={"trainer": config.trainer.model_copy(update={"workers": 1})})
    here = list(training_loader(prepared.cache, prepared.split, config))
    there = list(training_loader(prepared.cache, prepared.split, with_workers))
    assert all(torch.equal(a.labelled, b.labelled) for a, b in zip(here, there, strict=True))


def test_a_signal_to_all_processes_leaves_the_workers_at_work(prepared: Prepared, phantom: Path) -> None:
    """Ctrl-C and schedulers signal the group; the run then needs its next batch to end in good order."""
    config = tiny_config(phantom, trainer={"workers": 1})
    batches: Any = iter(training_loader(prepared.cache, prepared.split, config))
    next(batches)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(batches._workers[0].pid, number)
    assert len(list(batches)) == config.trainer.max_steps - 1


def test_flip_balances_training_images_of_smaller_classes_only(prepared: Prepared) -> None:
    from dataclasses import replace

    names = ["benign", "benign", "malignant"]
    records = [replace(r, class_name=c) for r, c in zip(prepared.split.unlabelled[:3], names, strict=True)]
    split = replace(prepared.split, labelled=tuple(records), unlabelled=())
    flipped = [e for e in training_entries(records, split, prepared.cache, "flip") if e.flipped]
    assert [e.id for e in flipped] == [records[2].id]
    assert not any(e.flipped for e in training_entries(records, split, prepared.cache, "none"))
