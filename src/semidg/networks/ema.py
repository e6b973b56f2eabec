"""Moving-average teachers of a network (Tarvainen and Valpola, NeurIPS 2017)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy without gradient, in eval mode (no dropout, BatchNorm by its running statistics)."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher.eval()


class MovingAverage:
    """A teacher and the student it follows; their tensors are looked for once, which takes as long as to move them.

    Moving the networks to another device ends it: make another one.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        networks = (teacher, student)
        self._teacher, self._student = ([t for t in _tensors(n) if t.is_floating_point()] for n in networks)
        self._counters, self._counted = ([t for t in _tensors(n) if not t.is_floating_point()] for n in networks)

    @torch.no_grad()
    def move(self, decay: float, step: int) -> None:
        """teacher <- d teacher + (1 - d) student, d = min(decay, (1 + step) / (10 + step)).

        The rule for buffers: running statistics of BatchNorm are averaged with the same d, so that they belong to the
        averaged weights; integer counters are copied.
        """
        d = min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._teacher, self._student, 1 - d)
        if self._counters:
            torch._foreach_copy_(self._counters, self._counted)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
