"""Boundary terms of the supervised part: an edge head, the boundary loss, the Hausdorff loss. Labelled images only."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from semidg import ranks
from semidg.objectives.supervised import soft_dice_loss
from semidg.types import IGNORE_INDEX


def edge_target(labels: Tensor, radius: int = 1) -> Tensor:
    """Morphological gradient of a label map: dilation - erosion > 0 with a square of side 2 radius + 1.

    labels: (B, H, W) int64. Returns (B, H, W) bool: pixels with another class than the least (or largest) one around
    them, so those on both sides of a boundary. ``IGNORE_INDEX`` pixels are no edge and make none beside them.
    """
    known = labels != IGNORE_INDEX
    side = 2 * radius + 1
    high = labels.where(known, -1).float().unsqueeze(1)
    low = labels.where(known, IGNORE_INDEX).float().unsqueeze(1)
    dilation = F.max_pool2d(high, side, 1, radius)
    erosion = -F.max_pool2d(-low, side, 1, radius)
    return (dilation > erosion).squeeze(1) & known


def edge_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Balanced binary cross entropy + soft Dice of an edge head against ``edge_target`` of the labels.

    logits: (B, H, W); labels: (B, H, W) int64; returns a scalar. The cross entropy of an image is the mean over its
    edge pixels and the mean over its other known pixels, averaged (class balance as in Xie and Tu, ICCV 2015, eq. 2,
    without its factor |Y+| |Y-| / |Y|^2); a kind of pixel the image has not is left out.
    """
    logits = logits.float()
    edge, known = edge_target(labels), labels != IGNORE_INDEX
    entropy = F.binary_cross_entropy_with_logits(logits, edge.float(), reduction="none")
    kinds = torch.stack([edge, known & ~edge], 1)  # (B, 2, H, W)
    counts = kinds.sum((2, 3))
    means = (entropy.unsqueeze(1) * kinds).sum((2, 3)) / counts.clamp_min(1)
    balanced = means.sum(1) / (counts > 0).sum(1).clamp_min(1)
    p = torch.sigmoid(logits)
    target = edge.long().where(known, IGNORE_INDEX)
    return balanced.mean() + soft_dice_loss(torch.stack([1 - p, p], 1), target)


def signed_distance(labels: Tensor, classes: int) -> Tensor:
    """Signed distance maps of the foreground classes: (B, H, W) int64 to (B, K - 1, H, W) float32, on its device.

    Outside a class the Euclidean distance to its nearest pixel, inside it minus the distance to the nearest pixel of
    another class, both from centre to centre and divided by the diagonal sqrt(H^2 + W^2): so never 0, in (-1, 1).
    0 on ``IGNORE_INDEX`` pixels, which belong to no class, and everywhere where the class is missing or alone.
    """
    maps = np.zeros((len(labels), classes - 1, *labels.shape[1:]), np.float32)
    for image, out in zip(labels.cpu().numpy(), maps, strict=True):
        for c in range(1, classes):
            inside = image == c
            outside = ~inside & (image != IGNORE_INDEX)
            if inside.any() and outside.any():
                out[c - 1] = distance_transform_edt(~inside) * outside - distance_transform_edt(~outside) * inside
    return ranks.send(torch.from_numpy(maps / math.hypot(*labels.shape[1:])), labels.device)


def boundary_loss(logits: Tensor, labels: Tensor, distance: Tensor) -> Tensor:
    """Boundary loss of Kervadec et al. (MIDL 2019): mean over pixels of P(q) phi(q).

    logits: (B, K, H, W); labels: (B, H, W) int64; distance: phi of ``signed_distance``, (B, K - 1, H, W). P is the
    softmax probability of a foreground class; the mean is over the classes and known pixels of the batch. Least, and
    below 0, for the truth itself, as every pixel of it adds a negative value and every other one a positive.
    Ours: phi in diagonals and never 0; the published code has pixels, and phi = -(d - 1), so 0 on the inner rim.
    """
    p = torch.softmax(logits.float(), 1)[:, 1:]
    known = ranks.share((labels != IGNORE_INDEX).sum())
    return (p * distance).sum() / (known * distance.shape[1])


def hausdorff_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """log(1 + mean (P - Y)^2 (d_P^2 + d_Y^2)) (Karimi and Salcudean, IEEE TMI 2020; the logarithm is MONAI's).

    logits: (B, K, H, W); labels: (B, H, W) int64; returns a scalar. P, Y: probability and truth of a foreground class;
    d: distance in pixels to the boundary of P > 1/2 and of Y, 0 where there is none (the paper's alpha is 2). The mean
    is over all pixels of each image and class. ``IGNORE_INDEX`` pixels count as background, in P too.
    """
    from monai.losses.hausdorff_loss import LogHausdorffDTLoss  # seconds to import, and rarely wanted

    known = (labels != IGNORE_INDEX).unsqueeze(1)
    p = torch.softmax(logits.float(), 1) * known
    truth = F.one_hot(labels.where(known.squeeze(1), 0), logits.shape[1]).movedim(-1, 1) * known
    loss: Tensor = LogHausdorffDTLoss()(p, truth.float())
    return loss
