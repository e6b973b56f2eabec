"""Protocols: named answers to "which images are scored, how, and what chose the checkpoint?".

A number means something only beside its protocol, so every summary and table carries the name, and the ``mark`` of a
protocol whose numbers flatter stands wherever they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from semidg.data_config import SplitConfig

#: A resized mask counts as foreground above this, in the published code.
PUBLISHED_THRESHOLD = 0.1


@dataclass(frozen=True)
class Protocol:
    """How a model is chosen and scored.

    selection: the part whose mean Dice chooses the checkpoint. scoring: ``original`` is the size of the original
    image against the mask as drawn; ``published`` is the size the networks see, against ``published_truth``.
    mark: what a table must say beside the row; None where there is nothing to warn of.
    """

    name: str
    about: str
    selection: Literal["validation", "test"] = "validation"
    scoring: Literal["original", "published"] = "original"
    mark: str | None = None


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("grouped", "near-duplicates and slices of one patient stay on one side of the split"),
        Protocol(
            "random",
            "image by image, as most published numbers",
            mark="random split: near-duplicates of test images may be in training",
        ),
        Protocol(
            "published",
            "random split without a validation part, best checkpoint on the test part, masks resized with a "
            "threshold of 0.1 and scored at the size the networks see",
            selection="test",
            scoring="published",
            mark="as published: random split, checkpoint chosen on the test part, masks resized with threshold 0.1; "
            "not comparable with other protocols",
        ),
        Protocol("leave_one_domain_out", "a whole domain is the test part; training never saw it, labelled or not"),
        Protocol(
            "oracle",
            "trained on labels of the held-out domain itself, scored on its other images",
            mark="oracle: trained on the held-out domain itself, with its labels",
        ),
        Protocol("external", "another data set, all of its labelled images; nothing was chosen on it"),
    )
}


def protocol_of(split: SplitConfig, meta: Mapping[str, Any]) -> Protocol:
    """The protocol of a run's own test part. meta: what split.json says, which counts where the split was given as
    lists; lists that were published so are random, whatever else is done as published."""
    if split.oracle or meta.get("oracle"):
        return PROTOCOLS["oracle"]
    if target_of(split, meta) is not None:
        return PROTOCOLS["leave_one_domain_out"]
    if split.protocol == "grouped" and meta.get("protocol") in ("random", "published"):
        return PROTOCOLS["random"]
    return PROTOCOLS[split.protocol]


def target_of(split: SplitConfig, meta: Mapping[str, Any]) -> str | None:
    """The domain that is held out, by the configuration or by split.json."""
    return split.target or meta.get("target")


def published_truth(mask: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The mask as the published code scores it: (H, W) of 0 and 1 -> (size, size), bilinear, above 0.1 is foreground.

    Lesions grow by it, the more the smaller ``size`` is.
    """
    grey = Image.fromarray(mask * np.uint8(255)).resize((size, size), Image.Resampling.BILINEAR)
    return (np.asarray(grey) > PUBLISHED_THRESHOLD * 255).astype(np.uint8)
