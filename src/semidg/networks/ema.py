"""Moving-average teachers of a network (Tarvainen and Valpola, NeurIPS 2017)."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy without gradient, in eval mode (no dropout, BatchNorm by its running statistics)."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher.eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """teacher <- d teacher + (1 - d) student, d = min(decay, (1 + step) / (10 + step)).

    The rule for buffers: running statistics of BatchNorm are averaged with the same d, so that they belong to the
    averaged weights; integer counters are copied.
    """
    d = min(decay, (1 + step) / (10 + step))
    ours = list(chain(teacher.parameters(), (b for b in teacher.buffers() if b.is_floating_point())))
    theirs = list(chain(student.parameters(), (b for b in student.buffers() if b.is_floating_point())))
    torch._foreach_lerp_(ours, [t.detach() for t in theirs], 1 - d)
    ours, theirs = ([b for b in network.buffers() if not b.is_floating_point()] for network in (teacher, student))
    if ours:
        torch._foreach_copy_(ours, theirs)
