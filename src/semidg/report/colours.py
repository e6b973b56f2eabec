"""The colour of each class, in overlays, label maps and legends.

Those of Okabe and Ito, told apart in all common forms of colour blindness, as far as they reach.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

Colour = tuple[int, int, int]

#: Line of the truth, and fill and line of predicted class 1, 2, ...
TRUTH_COLOUR: Colour = (86, 180, 233)
CLASS_COLOURS: tuple[Colour, ...] = ((230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0))

_GOLDEN = 0.618034  # turns of hue from one further colour to the next, which never come near to one another soon


def class_colour(number: int) -> Colour:
    """Red, green, blue of class ``number``, from 1; beyond CLASS_COLOURS by turns of hue, at two brightnesses."""
    if number <= len(CLASS_COLOURS):
        return CLASS_COLOURS[number - 1]
    k = number - len(CLASS_COLOURS) - 1
    red, green, blue = colorsys.hsv_to_rgb((0.8 + k * _GOLDEN) % 1, 0.75, (0.95, 0.6)[k % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def palette(classes: int) -> npt.NDArray[np.uint8]:
    """(classes, 3): black for the background, then the colour of each class number."""
    return np.array([(0, 0, 0), *(class_colour(number) for number in range(1, classes))], np.uint8)


def css(colour: Colour) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def legend_png(names: Sequence[str]) -> bytes:
    """A PNG of the names of the foreground classes, each beside its colour; names: by class number."""
    handles = [Patch(color=css(class_colour(number)), label=name) for number, name in enumerate(names) if number]
    figure = Figure(figsize=(1, 1))
    FigureCanvasAgg(figure)
    figure.legend(handles=handles, loc="center", frameon=False, fontsize=11)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, bbox_inches="tight", pad_inches=0.1, metadata={"Software": None})
    return stream.getvalue()
