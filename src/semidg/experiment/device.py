"""Which processor to use, and how many threads of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from semidg.config import TrainerConfig
from semidg.errors import ConfigError

#: The CPUs of a run that ``compare`` has started beside others, a whole number.
CPUS = "SEMIDG_CPUS"


def usable_cores(system: Path = Path("/")) -> int:
    """CPUs this process may use, at least 1: those of its affinity, which the kernel keeps inside its cpuset, the quota
    of its control groups in whole CPUs, and SEMIDG_CPUS. system: where /proc and /sys are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(int, _quotas(system)), *_wish(CPUS)]))


def _quotas(system: Path) -> Iterator[float]:
    """Quota / period of the control groups of this process and of all above them; nothing where there is none."""
    mount, groups = system / "sys/fs/cgroup", ["0::/", "0:cpu:/"]  # in a container a path may be that of the host
    with contextlib.suppress(OSError, UnicodeDecodeError):
        groups += (system / "proc/self/cgroup").read_text("utf-8").splitlines()
    places: dict[Path, None] = {}  # in their order, each once
    for line in groups:
        controllers, path = [*line.split(":", 2)[1:], "", "/"][:2]
        parts = [] if ".." in path else [part for part in path.split("/") if part]
        if controllers == "":  # version 2
            tops = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [mount / controllers, mount / "cpu"]
        else:
            continue
        places |= {top.joinpath(*parts[:n]): None for top in tops for n in range(len(parts) + 1)}
    for place in places:
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (place / "cpu.max").read_text("ascii").split()
            yield int(quota) / int(period)  # ValueError for "max"
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((place / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period"))
            if int(quota) > 0:  # -1: none
                yield int(quota) / int(period)


def _wish(variable: str) -> list[int]:
    """The positive whole number of an environment variable, if it holds one (of ``4,2`` the first)."""
    text = os.environ.get(variable, "").split(",")[0].strip()
    return [int(text)] if text.isdecimal() and int(text) else []


def share_of_cores(jobs: int) -> dict[str, str]:
    """The environment of each of several processes at once on this machine, which divide its CPUs."""
    share = str(max(1, usable_cores() // jobs))
    return {CPUS: share} | ({} if _wish("OMP_NUM_THREADS") else {"OMP_NUM_THREADS": share})


def loader_workers(config: TrainerConfig) -> int:
    """Processes that load data, for each device: those configured; ``auto``: none on a CPU, and for a GPU up to four of
    its share of the CPUs, one of which the training itself has."""
    if config.workers != "auto":
        return config.workers
    gpu = config.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    return max(0, min(4, usable_cores() // config.devices - 1)) if gpu else 0


def set_threads(config: TrainerConfig) -> None:
    """Threads of PyTorch on the CPU: those configured, or of the usable cores the share of a device less its loaders,
    and no more than OMP_NUM_THREADS."""
    share = max(1, usable_cores() // config.devices - loader_workers(config))
    torch.set_num_threads(config.threads or min([share, *_wish("OMP_NUM_THREADS")]))


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
    ``bf16`` saves a sixth to a quarter of a step (``python -m benchmarks step`` measures it).
    """
    if precision == "auto":
        return "bf16-mixed" if device.type == "cuda" and has_bf16(device) else "32-true"
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("trainer.precision fp16 needs a CUDA device; use 32, bf16 or auto")
    return {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]


def has_bf16(device: torch.device) -> bool | None:
    """Whether a device has bf16 instructions; None where PyTorch cannot say. What has none still computes in bf16, by
    conversions around each operation, which PyTorch reports as supported."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ask = getattr(torch.cpu, "get_capabilities", None)  # of later versions of PyTorch
    if device.type != "cpu" or ask is None:
        return None
    can = ask()
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def slow_precision(precision: str, device: torch.device) -> str | None:
    """A warning where ``trainer.precision`` costs time in place of saving it."""
    if precision != "bf16" or has_bf16(device) is not False:
        return None
    return (
        f"trainer.precision bf16: this {'processor' if device.type == 'cpu' else 'GPU'} has no bf16 instructions, and "
        f"what stands in for them can take ten times as long; use {'32' if device.type == 'cpu' else 'fp16 or 32'}"
    )
