"""How long threads that wait for each other spin before they sleep: a forward and backward with ``semidg``'s choice
over the same with the default of GNU's OpenMP, on an idle machine and beside a process that keeps one core busy.

The setting is read when PyTorch is loaded, so every value comes from a process of its own, in turn.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks.figure import Figure, figure
from benchmarks.process import in_child
from benchmarks.training import seconds
from semidg.cli import wait_briefly
from semidg.config_file import load_config
from semidg.experiment.device import keep_freed_memory, usable_cores
from semidg.networks.factory import make_network

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def passes(threads: int, rounds: int) -> float:
    """Seconds of a forward and backward of the network of the preset phantom on 4 images, the median."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    config = load_config("phantom")
    network = make_network(config.network, config.data.channels, 0).to(memory_format=torch.channels_last)
    images = torch.rand(4, config.data.channels, config.data.size, config.data.size)
    images = images.contiguous(memory_format=torch.channels_last)
    return statistics.median([seconds(lambda: network(images).logits.mean().backward()) for _ in range(rounds + 1)][1:])


@contextlib.contextmanager
def environment(ours: bool) -> Iterator[None]:
    """As a user has it who set nothing, and, if ``ours``, as ``semidg`` sets it."""
    before = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    try:
        if ours:
            wait_briefly()
        yield
    finally:
        for name in SETTINGS:
            os.environ.pop(name, None)
        os.environ |= before


@contextlib.contextmanager
def busy(really: bool) -> Iterator[None]:
    """Beside a program that computes all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    # a session of its own, as another program has it: the kernel may divide the cores by session first
    other = subprocess.Popen(command, start_new_session=True) if really else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def figures(quick: bool) -> list[Figure]:
    """Ours over the default, both with all cores, and ours with all cores over one thread."""
    found, cores = [], usable_cores()
    for other in (False, True):
        about = "beside a busy process" if other else "alone"
        times: dict[str, list[float]] = {"ours": [], "default": [], "one": []}
        with busy(other):
            for _ in range(1 if quick else 3):
                for name, threads in (("ours", cores), ("default", cores), ("one", 1)):
                    with environment(name != "default"):
                        times[name].append(in_child("benchmarks.waiting:passes", threads, 1 if quick else 2))
        for one, over, label in (("ours", "default", "ours / default"), ("ours", "one", "all threads / one thread")):
            ratios = [a / b for a, b in zip(times[one], times[over], strict=True)]
            found.append(figure(f"{about}: {label}", ratios))
        found.append(figure(f"{about}: ours, ms", [1000 * s for s in times["ours"]]))
    return found
