"""Where the time of a training step goes.

PyTorch's profiler looks at steps of the training loop one by one. Every operation belongs to the innermost region it
was called in (teachers, students, views, ...); one of a backward belongs to the region of its forward. Convolutions and
BatchNorm are told apart from the rest of the networks by their names. ``rest`` is what the profiler sees no operation
in: the loop, Python, the profiler itself, which makes a step a little slower.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.figure import Figure, figure
from benchmarks.training import configure, train, write_data
from semidg.experiment.loaders import training_loader
from semidg.experiment.module import MethodModule
from semidg.experiment.prepare import prepare
from semidg.methods import crosslight, two_network
from semidg.networks.folding import Folded

PREFIX = "semidg: "
BACKWARD = "autograd::engine::evaluate_function: "
GROUPS = (
    "convolutions, forward",
    "convolutions, backward",
    "BatchNorm, forward",
    "BatchNorm, backward",
    "rest of the networks, forward",
    "rest of the networks, backward",
    "averages, forward",
    "views",
    "losses, forward",
    "losses, backward",
    "clipping",
    "optimiser",
    "averaging",
    "loading",
    "rest",
)


def region(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose operations belong to the region ``name``."""

    @functools.wraps(function)
    def inside(*arguments: Any, **named: Any) -> Any:
        with record_function(PREFIX + name):
            return function(*arguments, **named)

    return inside


@contextlib.contextmanager
def regions_of_methods() -> Iterator[None]:
    """Views and averages as the methods call them."""
    places: list[tuple[Any, str, str]] = [
        (two_network, "make_views", "views"),
        (two_network, "apply_cutmix", "views"),
        (crosslight, "make_views", "views"),
        (crosslight, "apply_cutmix", "views"),
        (crosslight, "strong_labelled", "views"),
        (crosslight.CrossLight, "paste", "views"),
        (Folded, "__call__", "averages, forward"),
    ]
    with contextlib.ExitStack() as stack:
        for place, name, of in places:
            stack.enter_context(mock.patch.object(place, name, region(of, getattr(place, name))))
        yield


def mark(trainer: L.Trainer, module: MethodModule) -> None:
    """Give the parts of a training their regions."""
    for network in module.method.networks:
        network.forward = region("students", network.forward)  # type: ignore[method-assign]
    replaced: nn.Module = module
    for owner, method, name in (
        (module.method, "losses", "losses"),
        (module.method, "after_step", "averaging"),
        (replaced, "configure_gradient_clipping", "clipping"),
    ):
        object.__setattr__(owner, method, region(name, getattr(owner, method)))


class Loading:
    """A loader, whose operations belong to the region ``loading``."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        stream = iter(self.loader)
        for _ in range(len(self)):
            yield region("loading", next)(stream)


def group_of(event: Any, forward: dict[int, str]) -> str:
    """The group of GROUPS that an operation belongs to; forward: the region of the operation of each number."""
    called, region, direction, step = "", "", "forward", event
    while step is not None and not region:
        called += step.name.lower()
        if step.name.startswith(BACKWARD):  # of a number that no operation has: the gradients of the weights are kept
            region, direction = forward.get(step.sequence_nr, "students"), "backward"
        elif step.name.startswith(PREFIX):
            region = step.name.removeprefix(PREFIX)
        elif step.name.startswith("Optimizer."):
            region = "optimiser"
        step = step.cpu_parent
    if region == "students":
        norm = "batch_norm" in called or "batchnorm" in called
        convolution = "conv" in called or "depthwise" in called
        region = "convolutions" if convolution else "BatchNorm" if norm else "rest of the networks"
        return f"{region}, {direction}"
    return f"losses, {direction}" if region == "losses" else region or "rest"


def grouped(events: Any) -> dict[str, float]:
    """Milliseconds of each group, of the events of one step."""
    forward: dict[int, str] = {}
    for event in events:
        step = event
        while step is not None and not step.name.startswith((PREFIX, BACKWARD)):
            step = step.cpu_parent
        if event.sequence_nr >= 0 and step is not None and step.name.startswith(PREFIX):
            forward[event.sequence_nr] = step.name.removeprefix(PREFIX)
    times: Counter[str] = Counter()
    for event in events:
        if not event.name.startswith("Optimizer."):  # the loop calls the whole step in the optimiser's
            times[group_of(event, forward)] += event.self_cpu_time_total / 1000
    return dict(times)


class Watch:
    """A profile of each step, from the end of the last one on; what it takes to begin and end is not in it."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.profile: Any = None

    def begin(self) -> None:
        """The next step begins."""
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.profile.start()
        self.begun = time.perf_counter()

    def next(self) -> None:
        """A step is done, the next begins."""
        whole = 1000 * (time.perf_counter() - self.begun)
        self.profile.stop()
        found = grouped(self.profile.events())
        known = sum(ms for name, ms in found.items() if name != "rest")
        self.steps.append(found | {"rest": whole - known, "whole": whole})
        self.begin()


def measure(folder: Path, method: str, quick: bool, steps: int) -> list[dict[str, float]]:
    """Milliseconds of each group in each step, the first one left out."""
    config = configure(folder, method, quick, **({"batch_labelled": 2, "batch_unlabelled": 2} if quick else {}))
    prepared, watch = prepare(config), Watch()
    start = config.trainer.max_steps - steps - 1
    batches = Loading(training_loader(prepared.cache, prepared.split, config, start))

    def begin(trainer: L.Trainer, module: MethodModule) -> None:
        mark(trainer, module)
        # what the profiler keeps comes to lie between the tensors: with memory to spare no step asks for new pages
        torch.zeros(2**20 if quick else 2**29)
        watch.begin()

    with regions_of_methods():
        train(config, batches, watch.next, begin)
    watch.profile.stop()
    return watch.steps[1:]


def figures(quick: bool) -> list[Figure]:
    """Of crosslight and epl, in 32-bit with the batch of the preset."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        write_data(Path(name), quick)
        for method in ("crosslight",) if quick else ("crosslight", "epl"):
            steps = measure(Path(name), method, quick, 1 if quick else 7)
            for group in (*GROUPS, "whole"):
                found.append(figure(f"{group}: {method}, ms", [step.get(group, 0.0) for step in steps]))
            for group in GROUPS:
                shares = [100 * step.get(group, 0.0) / step["whole"] for step in steps]
                found.append(figure(f"{group}: {method}, % of the step", shares))
    return found
