"""Pictures: overlays, confidence maps, the comparison grid and the chart of Dice by domain.

Predictions are filled in the colours of their classes, orange where there is one, the truth is a sky-blue line
(``colours``). matplotlib is used without pyplot, so that no global state is touched.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from semidg.evaluation.metrics import case_metrics
from semidg.files import write_bytes
from semidg.report.colours import CLASS_COLOURS, TRUTH_COLOUR, Colour, class_colour
from semidg.types import IGNORE_INDEX

Picture = npt.NDArray[np.uint8]
#: Methods in a chart, in order; the dark end first, so that two methods also differ in print without colour.
METHOD_COLOURS = ("#6b7280", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")

#: (256, 3), a confidence of 0 to 1: cividis, dark blue to yellow, the same to all forms of colour vision.
CONFIDENCE_COLOURS: Picture = mpl.colormaps["cividis"](np.arange(256), bytes=True)[:, :3]

_NAMES_AS_THEY_ARE = mpl.rc_context({"text.parse_math": False})  # one with dollars is no formula

_FILL = 0.3
_PANEL = 2.1  # width of a picture in the comparison figure, inches
_SHARP = 400  # pictures below this side are enlarged for it, so that contours stay thin
_DPI = 160


def overlay(
    image: Picture, mask: npt.NDArray[Any], truth: npt.NDArray[Any] | None = None, thickness: int | None = None
) -> Picture:
    """The image, (H, W) or (H, W, C) uint8, with the prediction filled and outlined and the truth outlined.

    ``mask`` and ``truth`` are (H, W) class numbers; returns (H, W, 3). The line of the prediction lies inside its
    mask and that of the truth outside of its own, so that both are seen where they agree; where the picture's frame
    cuts a mask there is no line. Lines are ``thickness`` pixels wide, by default 1 up to a side of 375 and then 1
    more for each 250. Ignored pixels of the truth are drawn as background.
    """
    result = _rgb(image).copy()
    height, width = result.shape[:2]
    for name, labels in (("mask", mask), ("truth", truth)):
        if labels is not None and labels.shape != (height, width):
            raise ValueError(f"{name} is {labels.shape}, the image {(height, width)}: bring them to one size first")
    thickness = thickness or max(1, round(min(height, width) / 250))
    box = _box(mask > 0)
    part, labels = result[box], mask[box]
    for number in np.unique(labels[labels > 0]):
        colour = np.array(class_colour(int(number)), np.float32)
        inside = labels == number
        line = inside & ~binary_erosion(inside, iterations=thickness, border_value=1)
        part[inside] = ((1 - _FILL) * part[inside].astype(np.float32) + _FILL * colour).round()
        part[line] = colour
    if truth is not None:
        for number in np.unique(truth[(truth > 0) & (truth != IGNORE_INDEX)]):
            inside = truth == number
            result[binary_dilation(inside, iterations=thickness) & ~inside] = TRUTH_COLOUR
    return result


def _box(inside: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of (H, W) with all pixels inside and, where the frame leaves room, one pixel round them: a line drawn in
    it is that of the whole."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)


def confidence_numbers(confidence: npt.NDArray[np.floating[Any]]) -> Picture:
    """A confidence map (H, W) in [0, 1] as colours of CONFIDENCE_COLOURS: 256 equal steps, (H, W) of 0 to 255."""
    steps = np.fmax(confidence * len(CONFIDENCE_COLOURS), 0)  # of a number and NaN it takes the number
    return np.asarray(np.minimum(steps, len(CONFIDENCE_COLOURS) - 1), dtype=np.uint8)


def confidence_image(confidence: npt.NDArray[np.floating[Any]]) -> Picture:
    """The same as a picture (H, W, 3)."""
    return CONFIDENCE_COLOURS[confidence_numbers(confidence)]


@_NAMES_AS_THEY_ARE
def comparison_figure(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> None:
    """A grid of pictures, written to ``path`` (PNG): input, ground truth, then one column a method.

    ``columns`` names the methods. Each row holds ``image``, uint8 (H, W) or (H, W, C); ``truth``, (H, W) class
    numbers; ``predictions``, method -> (H, W); and, if wanted, ``title``, written at its left, and ``dice``,
    method -> value in [0, 1], computed where it is missing. The Dice stands under each prediction.
    """
    if not rows:
        raise ValueError("a comparison figure needs at least one row")
    headings = ["Input", "Ground truth", *columns]
    shapes = [np.asarray(row["image"]).shape for row in rows]
    heights = [min(max(shape[0] / shape[1], 0.3), 2.0) * _PANEL for shape in shapes]
    figure = Figure(figsize=(_PANEL * len(headings) + 0.4, sum(heights) + 0.24 * len(rows) + 0.6))
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03, hspace=0, wspace=0)
    axes = figure.subplots(len(rows), len(headings), squeeze=False, height_ratios=heights)
    for row, line in zip(rows, axes, strict=True):
        image, truth = _enlarged(row["image"], row["truth"])
        bold = max(1, round(min(truth.shape) / 170))  # the grid shows pictures smaller than they are
        pictures = [image, overlay(image, np.zeros_like(truth), truth, bold)]
        captions = [" ", " "]
        for name in columns:
            prediction = row["predictions"][name]
            pictures.append(overlay(*_enlarged(row["image"], prediction), truth, bold))
            dice = row.get("dice", {}).get(name)
            if dice is None:
                classes = max(
                    2, 1 + int(max(prediction.max(), np.where(row["truth"] == IGNORE_INDEX, 0, row["truth"]).max()))
                )
                dice = case_metrics(prediction, row["truth"], classes)["dice"]
            captions.append(f"Dice {dice:.2f}")
        for axis, picture, caption in zip(line, pictures, captions, strict=True):
            axis.imshow(picture, interpolation="antialiased")
            axis.set_xlabel(caption, fontsize=10, labelpad=3)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(row.get("title", ""), fontsize=10)
    for axis, heading in zip(axes[0], headings, strict=True):
        axis.set_title(heading, fontsize=11)
    figure.legend(
        handles=[
            Patch(facecolor=(*_unit(CLASS_COLOURS[0]), _FILL), edgecolor=_unit(CLASS_COLOURS[0]), label="prediction"),
            Patch(facecolor="none", edgecolor=_unit(TRUTH_COLOUR), label="ground truth"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=10,
    )
    _save_figure(figure, path)


@_NAMES_AS_THEY_ARE
def dice_chart(cases: Mapping[str, pd.DataFrame], path: Path, metric: str = "dice") -> None:
    """Every case of every method as a point, with a box, by domain; written to ``path`` (PNG).

    ``cases`` maps a method's name to its table of cases (columns domain and ``metric``). The box spans the quartiles,
    its line is the median, the diamond the mean, and whiskers reach the 5th and 95th percentile.
    """
    domains = sorted({str(domain) for table in cases.values() for domain in table["domain"]})
    if not domains:
        raise ValueError("a chart needs at least one case")
    step = 0.8 / len(cases)
    width = max(4.5, 0.55 * len(cases) * len(domains) + 1.5)
    figure = Figure(figsize=(width, 3.9), layout="constrained")
    axis = figure.subplots()
    generator = np.random.default_rng(0)  # only moves points sideways
    for order, table in enumerate(cases.values()):
        colour = METHOD_COLOURS[order % len(METHOD_COLOURS)]
        for place, domain in enumerate(domains):
            values = table.loc[table["domain"].astype(str) == domain, metric].to_numpy(dtype=np.float64)
            if not values.size:
                continue
            centre = place + (order - (len(cases) - 1) / 2) * step
            spread = generator.uniform(-0.28, 0.28, values.size) * step
            axis.scatter(centre + spread, values, s=9, color=colour, alpha=0.35, linewidths=0)
            line = {"color": colour, "linewidth": 1.4}
            axis.boxplot(
                values,
                positions=[centre],
                widths=0.7 * step,
                whis=(5, 95),
                showfliers=False,
                showmeans=True,
                manage_ticks=False,
                boxprops=line,
                whiskerprops=line,
                capprops=line,
                medianprops=line | {"linewidth": 2.2},
                meanprops={"marker": "D", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": colour},
            )
    axis.set_xticks(range(len(domains)), domains)
    axis.set_xlim(-0.6, len(domains) - 0.4)
    axis.set_ylabel(metric.capitalize())
    if metric not in {"hd95", "assd"}:
        axis.set_ylim(-0.02, 1.02)
    axis.grid(axis="y", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=METHOD_COLOURS[i % len(METHOD_COLOURS)], label=name) for i, name in enumerate(cases)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)), frameon=False)
    _save_figure(figure, path)


def _rgb(image: Picture) -> Picture:
    if image.dtype != np.uint8:
        raise ValueError(f"the image must be uint8, not {image.dtype}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3:
        raise ValueError(f"the image is {image.shape}; (H, W) or (H, W, C) is needed")
    # 1 channel is grey, 2 grey with opacity, 4 RGB with opacity, which is dropped
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def _enlarged(image: Picture, labels: npt.NDArray[Any]) -> tuple[Picture, npt.NDArray[Any]]:
    rgb = _rgb(image)
    factor = math.ceil(_SHARP / min(rgb.shape[:2]))
    if factor < 2:
        return rgb, labels
    size = (rgb.shape[1] * factor, rgb.shape[0] * factor)
    larger = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    return larger, labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _unit(colour: Colour) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


def _save_figure(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    write_bytes(path, buffer.getvalue())
