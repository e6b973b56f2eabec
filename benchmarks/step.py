"""Time of a training step against the bare forward and backward of its networks on the same number of images.

    python -m benchmarks.step [--preset busi-lite] [--method dual_level] [--rounds 15] [--precision 32]

Both sides run in one process, in alternation, on the same images; the ratio is the median of the rounds' ratios, with
its quartiles. A second ratio adds the loader (cached images of a phantom) to the step. The bare side sees every image
that the step sends through a student with a gradient: labelled, weak and strong ones. ``bare_over_plain`` is the bare
side against the same with PyTorch's own convolutions.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from semidg.config import ExperimentConfig, load_config, parse_config
from semidg.data.phantom import write_phantom
from semidg.experiment.device import keep_freed_memory, set_threads
from semidg.experiment.loaders import training_loader
from semidg.experiment.prepare import prepare
from semidg.methods import make_method
from semidg.methods.base import Method
from semidg.networks.convolution import DepthwiseConv2d, PointwiseConv2d, StridedSameConv2d
from semidg.types import Batch, Progress


def ratios(ours: Callable[[], None], bare: Callable[[], None], rounds: int) -> tuple[list[float], list[float]]:
    """Ratio ours / bare of each round, and the seconds of ours; the order alternates."""
    ours(), bare()  # warm-up
    found, seconds = [], []
    for k in range(rounds):
        times = {}
        for run in (ours, bare) if k % 2 else (bare, ours):
            start = time.perf_counter()
            run()
            times[run] = time.perf_counter() - start
        found.append(times[ours] / times[bare])
        seconds.append(times[ours])
    return found, seconds


def measure(config: ExperimentConfig, rounds: int, precision: str) -> dict[str, Any]:
    """The ratios of one method."""
    set_threads(config.trainer)
    keep_freed_memory()
    method = make_method(config).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=1e-4, fused=True)
    bare_method = make_method(config).to(memory_format=torch.channels_last).train()
    prepared = prepare(config)
    stream = iter(training_loader(prepared.cache, prepared.split, config))
    repeated = channels_last(next(stream))
    late = Progress(9 * config.trainer.max_steps // 10, config.trainer.max_steps)
    seen: list[int] = []
    hook = method.networks[0].register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")

    def step(batch: Batch = repeated) -> None:
        with autocast():
            terms = method.losses(batch, late)
        torch.stack(list(terms.values())).sum().backward()
        for network in method.networks:
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        method.after_step(late)

    step()
    hook.remove()
    shape = (seen[0], *repeated.labelled.shape[1:])
    images = torch.rand(shape).contiguous(memory_format=torch.channels_last)

    def forward_backward(method: Method) -> None:
        with autocast():
            total = torch.stack([network(images).logits.float().mean() for network in method.networks]).sum()
        total.backward()
        method.zero_grad()

    def bare() -> None:
        forward_backward(bare_method)

    step_ratio, seconds = ratios(step, bare, rounds)
    plain = plain_convolutions(copy.deepcopy(bare_method))
    fast_ratio, _ = ratios(bare, lambda: forward_backward(plain), rounds)
    loading = []
    for _ in range(rounds):
        start = time.perf_counter()
        channels_last(next(stream))
        loading.append(time.perf_counter() - start)
    return {
        "method": config.method.name,
        "images_a_network": seen[0],
        "threads": torch.get_num_threads(),
        "precision": precision,
        "rounds": rounds,
        "step_over_bare": summary(step_ratio),
        "bare_over_plain": summary(fast_ratio),
        "loading_over_step": summary([b / a for a, b in zip(seconds, loading, strict=True)]),
        "seconds_a_step": summary(seconds),
        "peak_resident_mb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
        ),
    }


def plain_convolutions(method: Method) -> Method:
    """The method with the convolutions of PyTorch and timm in place of those of ``networks/convolution.py``."""
    for module in method.modules():
        if type(module) in (PointwiseConv2d, StridedSameConv2d, DepthwiseConv2d):
            module.__class__ = type(module).__bases__[0]
    return method


def channels_last(batch: Batch) -> Batch:
    """As the training loop moves a batch."""
    return batch.map(lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t)


def summary(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 4), "q25": round(low, 4), "q75": round(high, 4)}


def main() -> None:
    """Measure and print JSON, a line a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="busi-lite")
    parser.add_argument("--method", nargs="+", default=["dual_level"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_phantom(root, images_per_scanner=12, size=192)
        for name in options.method:
            values = load_config(options.preset).model_dump(mode="json")
            values["method"] = {"name": name}
            values["data"] |= {"root": str(root), "layout": "folders", "cache": str(Path(folder) / "cache")}
            config = parse_config(values, "benchmark")
            print(json.dumps(measure(config, options.rounds, options.precision)), flush=True)


if __name__ == "__main__":
    main()
