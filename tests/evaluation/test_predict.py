"""Batched prediction and the way back to the original size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from semidg.evaluation.predict import confidence_map, label_map, predict_batches, to_original


def softmax(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(0)


def mark(images: Tensor) -> Tensor:
    """Two 'probabilities' that carry the first value of each image."""
    first = images[:, :1]
    return torch.cat([first, 1 - first], dim=1)


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 100])
def test_every_image_comes_back_once_and_in_order(batch: int) -> None:
    images = [torch.full((1, 4, 4), i / 10) for i in range(7)]
    sizes = []

    def predict(stacked: Tensor) -> Tensor:
        sizes.append(len(stacked))
        return mark(stacked)

    result = [float(p[0, 0, 0]) for p in predict_batches(predict, iter(images), batch, "cpu")]
    assert result == pytest.approx([i / 10 for i in range(7)])
    assert sum(sizes) == 7
    assert max(sizes) == min(batch, 7)


def test_images_are_read_only_as_needed() -> None:
    read = []

    def images() -> Iterator[Tensor]:
        for i in range(100):
            read.append(i)
            yield torch.zeros(1, 2, 2)

    next(predict_batches(mark, images(), 4, "cpu"))
    assert len(read) == 4


def test_no_graph_inside_and_gradients_untouched_outside() -> None:
    network = nn.Conv2d(1, 2, 1)
    inside = []

    def predict(stacked: Tensor) -> Tensor:
        inside.append(torch.is_grad_enabled())
        return network(stacked).softmax(1)

    for probabilities in predict_batches(predict, [torch.rand(1, 4, 4)] * 3, 2, "cpu"):
        assert not probabilities.requires_grad
        # the body of the loop is the caller's: it may train
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert inside == [False, False]


@pytest.mark.filterwarnings("error")
def test_arrays_tensors_and_bytes_mean_the_same() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    colour.setflags(write=False)  # as from a memory-mapped cache
    tensor = torch.from_numpy(colour.copy()).permute(2, 0, 1)
    a, b, c = predict_batches(lambda x: x, [colour, tensor, tensor / 255], 3, "cpu")
    assert torch.equal(a, b)
    assert torch.equal(b, c)
    assert a.shape == (3, 5, 5)
    (grey,) = predict_batches(lambda x: x, [colour[..., 0]], 3, "cpu")
    torch.testing.assert_close(grey, a[:1])


def test_half_precision_comes_back_as_float32() -> None:
    (result,) = predict_batches(lambda x: mark(x).half(), [torch.rand(1, 2, 2)], 1, "cpu")
    assert result.dtype == torch.float32


def test_wrong_shapes_and_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="for 2 images"):
        list(predict_batches(lambda x: x[:1], [torch.rand(1, 2, 2)] * 2, 2, "cpu"))
    with pytest.raises(ValueError, match="batch"):
        list(predict_batches(mark, [], 0, "cpu"))
    with pytest.raises(ValueError, match=r"\(C, S, S\)"):
        list(predict_batches(mark, [torch.rand(2, 2)], 1, "cpu"))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(1, 20), st.integers(1, 20), st.integers(1, 50), st.integers(1, 50))
def test_resized_probabilities_still_sum_to_one(k: int, h: int, w: int, height: int, width: int) -> None:
    result = to_original(softmax(k, h, w), height, width)
    assert result.shape == (k, height, width)
    torch.testing.assert_close(result.sum(0), torch.ones(height, width), atol=1e-5, rtol=0)
    assert result.min() >= 0


def test_enlarging_uses_pixel_centres() -> None:
    # align_corners=False: the centres of 4 pixels lie at -1/4, 1/4, 3/4, 5/4 of the two old ones
    row = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    torch.testing.assert_close(to_original(row, 1, 4)[0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_shrinking_hears_every_pixel() -> None:
    values = torch.zeros(2, 1, 64)
    values[1] = 1
    values[0, 0, 29], values[1, 0, 29] = 1, 0
    assert to_original(values, 1, 8)[0].sum() > 0.05  # plain bilinear looks at 2 of each 8 pixels and gives 0


def test_shrinking_one_side_does_not_change_the_enlarged_one() -> None:
    column = softmax(2, 6, 1).expand(2, 6, 40)
    both = to_original(column, 15, 10)
    torch.testing.assert_close(both, to_original(column, 15, 40)[..., :10], atol=1e-6, rtol=0)


def test_same_size_is_untouched_and_a_centred_square_stays_centred() -> None:
    p = softmax(3, 7, 9)
    assert torch.equal(to_original(p, 7, 9), p)
    square = torch.zeros(2, 32, 32)
    square[1, 8:24, 8:24] = 1
    square[0] = 1 - square[1]
    labels = label_map(to_original(square, 100, 60))
    rows, columns = np.nonzero(labels)
    assert (rows.min() + rows.max()) / 2 == 49.5
    assert (columns.min() + columns.max()) / 2 == 29.5
    assert labels.mean() == pytest.approx(0.25, abs=0.02)


def test_label_map_is_the_most_probable_class_and_the_first_of_equals() -> None:
    p = torch.tensor([[0.2, 0.5, 0.1], [0.3, 0.5, 0.1], [0.5, 0.0, 0.8]])[:, None]
    labels = label_map(p)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[2, 0, 2]]


def test_confidence_runs_from_even_to_certain() -> None:
    p = torch.tensor([[0.25, 1.0, 0.5], [0.25, 0.0, 0.5], [0.25, 0.0, 0.0], [0.25, 0.0, 0.0]])[:, None]
    confidence = confidence_map(p)
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, [[0, 1, 1 / 3]], atol=1e-6)
    assert confidence_map(torch.tensor([[[0.2]], [[0.8]]]))[0, 0] == pytest.approx(0.6)
