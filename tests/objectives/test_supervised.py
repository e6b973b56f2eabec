"""Section 2: cross entropy and soft Dice, with the rule for an image without foreground."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from semidg.objectives.supervised import soft_dice_loss, supervised_loss
from semidg.types import IGNORE_INDEX


def slow_dice(p: torch.Tensor, target: torch.Tensor, smooth: float) -> float:
    scores = []
    for b in range(p.shape[0]):
        for c in range(1, p.shape[1]):
            overlap = predicted = true = 0.0
            for y in range(p.shape[2]):
                for x in range(p.shape[3]):
                    if int(target[b, y, x]) == IGNORE_INDEX:
                        continue
                    hit = float(target[b, y, x] == c)
                    overlap += float(p[b, c, y, x]) * hit
                    predicted += float(p[b, c, y, x])
                    true += hit
            scores.append((2 * overlap + smooth) / (predicted + true + smooth))
    return 1 - sum(scores) / len(scores)


@pytest.mark.parametrize("classes", [2, 4])
def test_dice_equals_the_slow_reference(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    p = torch.rand(3, classes, 5, 4, generator=generator, dtype=torch.float64).softmax(1)
    target = torch.randint(0, classes, (3, 5, 4), generator=generator)
    target[0, :2] = IGNORE_INDEX
    assert soft_dice_loss(p, target).item() == pytest.approx(slow_dice(p, target, 1.0))


def test_an_image_without_foreground_punishes_false_positives_only() -> None:
    target = torch.zeros(1, 10, 10, dtype=torch.int64)
    clean = torch.zeros(1, 2, 10, 10)
    clean[:, 0] = 1
    wrong = 1 - clean
    assert soft_dice_loss(clean, target).item() == 0
    assert soft_dice_loss(wrong, target).item() == pytest.approx(1 - 1 / 101)


def test_dice_is_the_mean_over_images_not_over_the_batch() -> None:
    """A large lesion must not outweigh a small one that is missed."""
    target = torch.zeros(2, 20, 20, dtype=torch.int64)
    target[0, :10], target[1, 0, :2] = 1, 1
    p = torch.zeros(2, 2, 20, 20)
    p[0, 1, :10] = 1
    assert soft_dice_loss(p, target).item() == pytest.approx(1 - (1 + 1 / 3) / 2)


def test_ignored_pixels_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 6, 6, generator=generator)
    target = torch.randint(0, 2, (2, 6, 6), generator=generator)
    target[:, 3:] = IGNORE_INDEX
    before = supervised_loss(logits, target)
    logits[:, :, 3:] += 5 * torch.randn(2, 2, 3, 6, generator=generator)
    torch.testing.assert_close(supervised_loss(logits, target), before)


def test_cross_entropy_part_is_the_mean_over_labelled_pixels() -> None:
    logits = torch.zeros(1, 2, 4, 4)
    target = torch.full((1, 4, 4), IGNORE_INDEX)
    target[0, 0, 0] = 0
    assert supervised_loss(logits, target).item() == pytest.approx(math.log(2) + 1 - 1 / 1.5)
    nothing = torch.full((1, 4, 4), IGNORE_INDEX)
    assert torch.isfinite(supervised_loss(logits, nothing))


@pytest.mark.parametrize(("classes", "last"), itertools.product((2, 3, 5), (False, True)))
def test_dice_is_that_of_one_hot_labels_bit_for_bit(classes: int, last: bool) -> None:
    """Against ``F.one_hot``, which looks at its labels."""
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(3, classes, 33, 17, generator=generator)
    logits = logits.contiguous(memory_format=torch.channels_last) if last else logits
    labels = torch.randint(0, classes, (3, 33, 17), generator=generator)
    labels[:, :4] = 255

    def plain(p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        valid = (target != 255).unsqueeze(1)
        truth = torch.nn.functional.one_hot(target.where(valid.squeeze(1), 0), classes).movedim(-1, 1)[:, 1:] * valid
        p = p[:, 1:] * valid
        return 1 - ((2 * (p * truth).sum((2, 3)) + 1) / (p.sum((2, 3)) + truth.sum((2, 3)) + 1)).mean()

    found = []
    for loss in (plain, soft_dice_loss):
        z = logits.clone().requires_grad_()
        value = loss(torch.softmax(z, 1), labels)
        value.backward()
        found.append((value.detach(), z.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])  # type: ignore[arg-type]
