"""The resumable state of a run: everything that a step depends on, in one file written atomically.

Data order, augmentation, schedules and dropout are pure functions of (seed, step), so weights, optimiser state and
the step number are enough to continue bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semidg.errors import RunError
from semidg.files import atomic_path

FORMAT = 1


@dataclass(frozen=True)
class State:
    """method: its tensors. optimiser: its state. step: steps done. best: best validation Dice so far and its step.

    seconds: time spent in training so far. precision: state of the loss scaling (fp16), else empty.
    """

    method: dict[str, Tensor]
    optimiser: dict[str, Any]
    step: int
    best: tuple[float, int] | None
    seconds: float
    precision: dict[str, Any] = field(default_factory=dict)


def save_state(path: Path, state: State) -> None:
    """Write the state; a reader sees the old file or the new one."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save({"format": FORMAT, **vars(state)}, stream)
        except RuntimeError as error:  # one of its own over what the disk says
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def load_state(path: Path) -> State:
    """Read the state; nothing but tensors and plain values is unpickled. Raises RunError."""
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no checkpoint to resume from; start the run anew without --resume") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged stream of pickle can raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: damaged checkpoint ({said}); start the run anew") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise RunError(f"{path}: a checkpoint of another version of semidg; this one reads format {FORMAT}")
    try:
        return State(**values)
    except TypeError as error:
        raise RunError(f"{path}: damaged checkpoint ({error}); start the run anew") from error
