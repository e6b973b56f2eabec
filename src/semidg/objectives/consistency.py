"""Consistency and pseudo labels of mean_teacher, ua_mt, fixmatch, unimatch, bcp and cps.

Symbols: P a probability of the network that learns, Q one of the network that teaches (without gradient), both
(B, K, H, W); results "a pixel" are (B, H, W).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from semidg import ranks
from semidg.objectives.confidence import FLOOR, cross_entropy
from semidg.objectives.supervised import supervised_loss
from semidg.types import IGNORE_INDEX


class PseudoLabel(NamedTuple):
    """label: (B, H, W) int64 class numbers. keep: (B, H, W) bool, where the label is trusted."""

    label: Tensor
    keep: Tensor


def squared_distance(log_p: Tensor, q: Tensor) -> Tensor:
    """||P - Q||^2 = sum_c (P - Q)^2 a pixel, in [0, 2] (Tarvainen and Valpola, NeurIPS 2017, the consistency cost).

    log_p: log-probabilities; q: probabilities; both (B, K, H, W).
    """
    return (log_p.exp() - q).square().sum(1)


def entropy(q: Tensor) -> Tensor:
    """u = -sum_c Q log Q a pixel, in [0, log K] (Yu et al., MICCAI 2019). q: (B, K, H, W) probabilities."""
    return -(q * q.clamp_min(FLOOR).log()).sum(1)


def entropy_limit(fraction: float, classes: int, start: float = 0.75) -> float:
    """H = (start + (1 - start) exp(-5 (1 - t)^2)) log K: pixels of an entropy below it are certain (Yu et al., 2019).

    fraction: t, the part of the training done, in [0, 1]. start: the paper's 3/4.
    """
    return (start + (1 - start) * math.exp(-5 * (1 - fraction) ** 2)) * math.log(classes)


def masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """sum(keep * values) / sum(keep), a scalar; 0 with a graph where nothing is kept. Both (B, H, W), keep bool."""
    return (values * keep).sum() / ranks.share(keep.sum())


def pseudo_label(log_q: Tensor, threshold: float = 0.0) -> PseudoLabel:
    """argmax_c Q, trusted where max_c Q >= threshold. log_q: (B, K, H, W) log-probabilities without gradient."""
    best, label = log_q.max(1)
    return PseudoLabel(label, best.exp() >= threshold)


def thresholded_cross_entropy(log_p: Tensor, target: PseudoLabel) -> Tensor:
    """mean over all pixels of 1[max Q >= tau] CE(P, argmax Q) (Sohn et al., NeurIPS 2020, eq. 4), a scalar.

    Pixels left out stay in the denominator: few trusted pixels make a small loss. log_p: (B, K, H, W).
    """
    return (cross_entropy(log_p, target.label) * target.keep).mean()


def soft_cross_entropy(log_p: Tensor, q: Tensor) -> Tensor:
    """-sum_c Q_c log P_c a pixel: cross entropy with a distribution as target; log P as floored in ``cross_entropy``.

    log_p: log-probabilities; q: probabilities without gradient; both (B, K, H, W).
    """
    return -(q * log_p.clamp_min(math.log(FLOOR))).sum(1)


def largest_components(label: Tensor, classes: int) -> Tensor:
    """Of each image and foreground class, only the largest 8-connected part stays; the rest becomes background.

    label: (B, H, W) int64; returns the same. Computed on the CPU. Of equal parts the first in reading order stays.
    """
    source = label.cpu().numpy()
    result = np.zeros_like(source)
    for image, out in zip(source, result, strict=True):
        for k in range(1, classes):
            parts, count = ndimage.label(image == k, np.ones((3, 3)))
            if count:
                largest = np.bincount(parts.ravel())[1:].argmax() + 1
                out[parts == largest] = k
    return ranks.send(torch.from_numpy(result), label.device)


def paste(inside: Tensor, given: Tensor, onto: Tensor) -> Tensor:
    """``given`` inside, ``onto`` outside. inside: (B, H, W) bool; values: (B, H, W) or (B, C, H, W), any dtype."""
    return torch.where(inside if given.dim() == inside.dim() else inside.unsqueeze(1), given, onto)


def region_loss(logits: Tensor, target: Tensor, labelled: Tensor, alpha: float = 0.5) -> Tensor:
    """L_seg on the labelled region + alpha L_seg on the rest (Bai et al., CVPR 2023), a scalar.

    L_seg = cross entropy + soft Dice, each over the pixels of its region. logits: (B, K, H, W); target: (B, H, W)
    int64; labelled: (B, H, W) bool, where the target is a label and not a pseudo label.
    """
    loss = supervised_loss(logits, target.where(labelled, IGNORE_INDEX))
    return loss + alpha * supervised_loss(logits, target.where(~labelled, IGNORE_INDEX)) if alpha else loss
