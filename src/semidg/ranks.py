"""One batch shared by several processes ("ranks"): what a step must know of the images of the other ranks.

Image k of the batch of a step belongs to rank k modulo R, the number of ranks. Every draw is made for the whole batch
by the same generator on every rank, which then takes its own rows; partners of an image and denominators of a loss are
those of the whole batch. So a step does not depend on R. In one process every function gives back what it got.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

#: (rank, R) inside ``together``, else a process alone.
_PLACE: ContextVar[tuple[int, int]] = ContextVar("place", default=(0, 1))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All ranks compute the same thing, each on its rows; outside, a rank is on its own even if there are others."""
    joined = dist.is_available() and dist.is_initialized()
    token = _PLACE.set((dist.get_rank(), dist.get_world_size()) if joined else (0, 1))
    try:
        yield
    finally:
        _PLACE.reset(token)


def world() -> int:
    """R, the number of ranks that share the batch."""
    return _PLACE.get()[1]


def send(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """To a device, without a wait for it on CUDA, where a copy from memory that is not page-locked has read its source
    before it returns. On MPS it may not have, and reads memory that is in use for something else by then."""
    return values.to(device, dtype, non_blocking=device.type == "cuda")


def own(values: Tensor, dim: int = 0) -> Tensor:
    """The rows of this rank along ``dim`` of something that was made for the whole batch."""
    rank, count = _PLACE.get()
    return values if count == 1 else values[(slice(None),) * dim + (slice(rank, None, count),)]


def gather(values: Tensor) -> Tensor:
    """Rows (B, ...) of every rank in the order of the whole batch, (R B, ...); no gradient goes through it."""
    count = world()
    if count == 1:
        return values
    sent = values.detach().contiguous()
    if sent.dtype == torch.bool:  # no backend knows it
        return gather(sent.to(torch.uint8)).bool()
    parts = [torch.empty_like(sent) for _ in range(count)]
    dist.all_gather(parts, sent)
    return torch.stack(parts, 1).flatten(0, 1)


def mean(values: Tensor) -> Tensor:
    """Mean over the ranks, with gradient: on every rank that of the mean of the objectives of all of them."""
    return values if world() == 1 else _sum(values) / world()


def share(count: Tensor) -> Tensor:
    """max(1, N) / R, N the sum of a count over the ranks: what a rank divides a sum by, so that the mean over the
    ranks is the sum over all images divided by N."""
    return count.clamp_min(1) if world() == 1 else _sum(count.float()).clamp_min(1) / world()


def combine(values: Tensor) -> Tensor:
    """One row a rank, (R, ...), with gradient."""
    rank, count = _PLACE.get()
    rows = [values if k == rank else torch.zeros_like(values) for k in range(count)]
    return torch.stack(rows) if count == 1 else _sum(torch.stack(rows))


@torch.no_grad()
def average_(tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their mean over the ranks, in one exchange."""
    if world() == 1:  # tensors are not looked for
        return
    found = [t for t in tensors if t.is_floating_point()]
    if not found:
        return
    flat = torch.cat([t.reshape(-1).float() for t in found])
    dist.all_reduce(flat)
    parts = torch.split(flat / world(), [t.numel() for t in found])
    for tensor, part in zip(found, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _sum(values: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(values)
    return summed


class _Sum(torch.autograd.Function):
    """y = sum over the ranks of x; the gradient of x is the sum over the ranks of that of y."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _sum(grad)
