"""Which processor to use, and how many threads of it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from pathlib import Path

import torch

from semidg.config import TrainerConfig
from semidg.errors import ConfigError


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its control group where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def set_threads(config: TrainerConfig) -> None:
    """Threads of PyTorch on the CPU: those configured, OMP_NUM_THREADS, or of the usable cores the share of a device,
    less the loaders."""
    count = config.threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
    torch.set_num_threads(count or max(1, usable_cores() // config.devices - config.workers))


def keep_freed_memory() -> None:
    """Let the process keep memory that tensors have freed, for those of the next step. By default glibc returns large
    blocks to the system at once, and every step pays for tens of thousands of page faults. Nothing elsewhere."""
    mmap_max, trim_threshold = -4, -1  # names of <malloc.h>
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def choose_device(accelerator: str, count: int = 1) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; raises ConfigError for one that is not there ``count`` times."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        accelerator = next(name for name, there in available.items() if there)
    if not available[accelerator]:
        raise ConfigError(f"trainer.accelerator {accelerator!r} is not available here; use auto or cpu")
    here = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator, count)  # on the CPU a device is a process
    if here < count:
        raise ConfigError(f"trainer.devices {count}: only {here} of {accelerator} here; lower it, or use cpu")
    return torch.device(accelerator)


def choose_precision(precision: str, device: torch.device) -> str:
    """Lightning's name of the precision; ``auto``: bf16 on a CUDA device that has it, 32-bit elsewhere.

    On a CPU 32-bit is the default, so that a run does not depend on the processor; where it has bf16 instructions,
    ``bf16`` saves a quarter of a step (``python -m benchmarks step`` measures it).
    """
    if precision == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16-mixed" if bf16 else "32-true"
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("trainer.precision fp16 needs a CUDA device; use 32, bf16 or auto")
    return {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
