"""A configuration that trains in seconds: a small encoder without weights, 32 x 32 pixels, six steps."""

from __future__ import annotations

from pathlib import Path

from semidg.config import ExperimentConfig
from semidg.config_file import parse_config


def tiny_config(root: Path | None = None, **changes: object) -> ExperimentConfig:
    """The tiny configuration with top-level sections replaced."""
    values: dict[str, object] = {
        "name": "tiny",
        "labelled": 0.4,
        "data": {"root": root, "size": 32, "channels": 1, "split": {"target": "delta", "validation": 0.2}},
        "network": {"encoder": "tu-test_efficientnet", "weights": "none", "atrous_rates": [1, 2, 3]},
        "method": {"name": "dual_level", "ramp": {"warmup": 0.0, "end": 0.5}},
        "trainer": {
            "max_steps": 6,
            "batch_labelled": 2,
            "batch_unlabelled": 2,
            "eval_every": 3,
            "checkpoint_every": 2,
            "log_every": 1,
            "accelerator": "cpu",
            "threads": 1,
        },
    }
    return parse_config(values | changes, "tests")
