"""The supervised part (METHOD section 2): cross entropy plus soft Dice on the foreground classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semidg import ranks
from semidg.types import IGNORE_INDEX


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(B, H, W) int64 to (B, K, H, W) bool, channels last; false in every class where a label is ``IGNORE_INDEX``.

    ``F.one_hot`` looks at the labels first, to refuse others.
    """
    return torch.stack([labels == k for k in range(classes)], -1).movedim(-1, 1)


def soft_dice_loss(probabilities: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - mean over images and foreground classes of (2 sum p y + s) / (sum p + sum y + s).

    probabilities: (B, K, H, W); target: (B, H, W) int64, ``IGNORE_INDEX`` pixels do not count; returns a scalar.
    An image without a foreground class gives s / (sum p + s): it pushes false positives of that class down.
    """
    valid = (target != IGNORE_INDEX).unsqueeze(1)
    classes = probabilities.shape[1]
    truth = one_hot(target, classes)[:, 1:]
    p = probabilities[:, 1:] * valid
    overlap = (p * truth).sum((2, 3))
    score = (2 * overlap + smooth) / (p.sum((2, 3)) + truth.sum((2, 3)) + smooth)
    return 1 - score.mean()


def supervised_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy (mean over labelled pixels) + soft Dice loss. logits: (B, K, H, W); target: (B, H, W) int64."""
    log_p = F.log_softmax(logits.float(), 1)
    count = ranks.share((target != IGNORE_INDEX).sum())
    entropy = F.nll_loss(log_p, target, ignore_index=IGNORE_INDEX, reduction="sum") / count
    return entropy + soft_dice_loss(log_p.exp(), target)
