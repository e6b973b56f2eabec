"""The benchmarks run: the cheap ones as a whole, of the others what they are made of."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch
from benchmarks.figure import Figure
from benchmarks.profile import PREFIX, grouped
from benchmarks.reference import Published
from benchmarks.step import METHODS, Bare, images_of
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from semidg.experiment.loaders import training_loader
from semidg.experiment.prepare import prepare
from semidg.methods import make_method
from semidg.types import Batch, Progress
from tests_support import tiny_config


@pytest.mark.parametrize(
    ("name", "targets"),
    [("evaluation", set()), ("fourier", {0.05}), ("loader", {0.97, 0.85}), ("step", set()), ("averages", set())],
)
def test_quick_figures_are_figures(name: str, targets: set[float]) -> None:
    threads = torch.get_num_threads()
    try:
        found: list[Figure] = importlib.import_module(f"benchmarks.{name}").figures(True)
    finally:
        torch.set_num_threads(threads)
    assert found
    assert len({f.name for f in found}) == len(found)
    assert all(math.isfinite(v) for f in found for v in (f.median, f.q25, f.q75))
    assert {f.target for f in found} - {None} == targets


@pytest.fixture(scope="module")
def batch(phantom: Path) -> Batch:
    config = tiny_config(phantom)
    prepared = prepare(config)
    return next(iter(training_loader(prepared.cache, prepared.split, config)))


@pytest.mark.parametrize("name", METHODS)
def test_the_bare_side_has_the_passes_of_the_step(phantom: Path, batch: Batch, name: str) -> None:
    method = make_method(tiny_config(phantom, method={"name": name})).train()
    assert method.teachers is not None
    seen: dict[str, list[tuple[int, int, bool]]] = {"step": [], "bare": []}
    side = "step"
    labelling = [method.average(k).network for k in range(len(method.networks))]  # what the step calls
    for kind, networks in enumerate((method.networks, [*method.teachers, *labelling])):
        for network in networks:
            network.register_forward_pre_hook(
                lambda _, images, kind=kind: seen[side].append((kind, len(images[0]), torch.is_grad_enabled()))
            )
    method.losses(batch, Progress(95, 100))
    side = "bare"
    images = images_of(name, len(batch.labelled), len(batch.unlabelled))
    bare = Bare(method, images, batch.labelled.shape[-1], batch.labelled.shape[1], "32")
    bare.students()
    bare.averages()
    assert sorted(seen["step"]) == sorted(seen["bare"])
    assert all(p.grad is None for p in method.parameters())


def test_the_reference_makes_eight_passes_without_a_gradient_and_six_with_one(phantom: Path, batch: Batch) -> None:
    networks = make_method(tiny_config(phantom, method={"name": "epl"})).train().networks
    seen: list[tuple[int, bool, bool]] = []
    for network in networks:
        network.register_forward_pre_hook(
            lambda module, images: seen.append((len(images[0]), module.training, torch.is_grad_enabled()))
        )
    before = [p.detach().clone() for p in networks.parameters()]
    Published(networks, batch, "32")()
    assert seen == [(2, True, False)] * 8 + [(2, True, True)] * 6
    assert any(not torch.equal(a, b) for a, b in zip(before, networks.parameters(), strict=True))


def test_operations_of_a_profile_are_grouped_by_region_and_direction() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid())
    images = torch.rand(2, 3, 16, 16)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        with record_function(PREFIX + "losses"):
            with record_function(PREFIX + "students"):
                out = network(images)
            with torch.no_grad(), record_function(PREFIX + "averages, forward"):
                labels = network(images)
            loss = (out.log_softmax(1) * labels).mean()
        loss.backward()
    found = grouped(watched.events())
    both = {f"{kind}, {way}" for kind in ("convolutions", "BatchNorm", "rest of the networks", "losses")
            for way in ("forward", "backward")}  # fmt: skip
    assert both | {"averages, forward"} <= set(found) <= both | {"averages, forward", "rest"}
    total = sum(event.self_cpu_time_total for event in watched.events()) / 1000
    assert sum(found.values()) == pytest.approx(total)
