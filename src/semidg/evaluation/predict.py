"""From images to probabilities, and from probabilities to label maps at the size of the original image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor


def predict_batches(
    predict: Callable[[Tensor], Tensor],
    images: Iterable[Tensor | npt.NDArray[np.uint8]],
    batch: int,
    device: torch.device | str,
) -> Iterator[Tensor]:
    """Class probabilities (K, S, S), float32 on the CPU, one an image and in the order of the images.

    ``predict`` maps (B, C, S, S) in [0, 1] on ``device`` to (B, K, S, S). ``images`` are tensors (C, S, S), float in
    [0, 1] or uint8, or uint8 arrays (S, S) or (S, S, C), all of one size. They are read ``batch`` at a time, so that
    ``images`` may be a generator over a data set that does not fit in memory; the last batch may be smaller and is
    never dropped. No graph is kept.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    source = iter(images)
    while chunk := list(islice(source, batch)):
        stacked = torch.stack([_as_tensor(image) for image in chunk])
        # inside the loop: a generator that yields within inference_mode would switch it on for its caller too
        with torch.inference_mode():
            probabilities = predict(stacked.to(device)).float().cpu()
        if probabilities.ndim != 4 or len(probabilities) != len(chunk):
            raise ValueError(
                f"predict returned {tuple(probabilities.shape)} for {len(chunk)} images; (B, K, S, S) is needed"
            )
        yield from probabilities


def to_original(probabilities: Tensor, height: int, width: int) -> Tensor:
    """Probabilities (K, h, w) resized to (K, height, width), float32; they still sum to 1 over K at each pixel.

    Bilinear with ``align_corners=False``, and with antialiasing where a side shrinks, so that every pixel of the
    input is heard. Probabilities are resized, not label maps: the contour then falls between the pixels of the
    network's grid in place of on its staircase.
    """
    values = probabilities.float()
    if values.shape[-2:] == (height, width):
        return values
    shrinks = height < values.shape[-2] or width < values.shape[-1]
    return F.interpolate(
        values[None], size=(height, width), mode="bilinear", align_corners=False, antialias=shrinks
    ).squeeze(0)


def label_map(probabilities: Tensor) -> npt.NDArray[np.uint8]:
    """The most probable class of each pixel, (K, H, W) -> (H, W); of equal ones the lowest number."""
    values: npt.NDArray[np.float32] = probabilities.detach().cpu().float().numpy()
    if len(values) == 2:  # the same, and much quicker
        return np.asarray(values[1] > values[0]).view(np.uint8)
    # numpy's argmax promises the first of equals, torch's does not
    return np.asarray(values.argmax(axis=0), dtype=np.uint8)


def confidence_map(probabilities: Tensor) -> npt.NDArray[np.float32]:
    """The largest class probability p of each pixel as (K p - 1) / (K - 1): (K, H, W) -> (H, W) in [0, 1].

    0 where all K classes are equally probable, 1 where one is certain.
    """
    classes = probabilities.shape[0]
    largest = probabilities.detach().cpu().float().amax(dim=0)
    return np.asarray(((classes * largest - 1) / (classes - 1)).clamp(0, 1).numpy(), dtype=np.float32)


def _as_tensor(image: Tensor | npt.NDArray[np.uint8]) -> Tensor:
    if isinstance(image, np.ndarray):
        # a copy: arrays from a memory-mapped cache are read-only, which torch warns about
        array = np.array(image[..., None] if image.ndim == 2 else image)
        image = torch.from_numpy(array).permute(2, 0, 1)
    if image.ndim != 3:
        raise ValueError(f"an image has shape {tuple(image.shape)}; (C, S, S) is needed")
    return image.float() / 255 if image.dtype == torch.uint8 else image
