"""What a benchmark measures: one figure with its spread, and the target it is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A measured figure, mostly a ratio of two times taken in alternation in one process.

    name: of the figure, unique within its benchmark. median, q25, q75: over the rounds. unit: empty for a ratio.
    target: what it should reach, None where it is only reported; at_most says on which side. details: what else there
    is to know, as JSON.
    """

    name: str
    median: float
    q25: float
    q75: float
    unit: str = ""
    target: float | None = None
    at_most: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        return self.median <= self.target if self.at_most else self.median >= self.target


def figure(name: str, values: Sequence[float], **more: Any) -> Figure:
    """The figure of one value a round."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return Figure(name, median, low, high, **more)


def alternate(
    ours: Callable[[], object], other: Callable[[], object], rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """(ratio ours / other of each round, seconds of ours, seconds of the other); first each once to warm up.

    The order turns round every time, so that a machine that slows down favours neither.
    """
    ours(), other()
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds):
        for side in (0, 1) if k % 2 else (1, 0):
            start = time.perf_counter()
            (ours, other)[side]()
            times[side].append(time.perf_counter() - start)
    return [a / b for a, b in zip(*times, strict=True)], *times
