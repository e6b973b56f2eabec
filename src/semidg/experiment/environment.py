"""What a number depends on beyond the configuration: versions, device, threads, commit."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import semidg
from semidg.config import ExperimentConfig


def environment(config: ExperimentConfig, device: torch.device, precision: str) -> dict[str, Any]:
    """Versions, seeds, device and commit: what a number depends on beyond the configuration."""
    packages = ("torch", "torchvision", "lightning", "segmentation-models-pytorch", "timm", "monai", "numpy")
    return {
        "semidg": semidg.__version__,
        "command": shlex.join(sys.argv),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "seed": config.seed,
        "split_seed": config.data.split.seed,
    }


def _commit() -> str | None:
    """Commit of the checkout this package runs from, with -dirty where it has changes; None outside one."""
    here = Path(semidg.__file__).parent
    command = ["git", "-C", os.fspath(here), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
