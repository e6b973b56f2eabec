"""A picture of the domains of a data set: the images of each that are most like its mean."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semidg.data.index import Index
from semidg.data.reading import record_image
from semidg.data.styles import style_features
from semidg.errors import DataError
from semidg.files import write_bytes
from semidg.types import Record

_ACROSS = 8
_SIDE = 1.5  # inches of a panel


def require_picture(path: Path) -> None:
    """Raises DataError for another ending than ``.png`` and ``.svg``."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise DataError(f"{path}: a picture is written as .png or .svg; choose one of these endings")


@mpl.rc_context({"text.parse_math": False})  # a name with dollars is a name
def write_domains_figure(index: Index, path: Path) -> None:
    """A row a domain: the ``_ACROSS`` images whose style features are nearest to the domain's mean, the nearest first.

    path: ``.png`` or ``.svg``. Raises DataError for another ending.
    """
    require_picture(path)
    features = np.stack([style_features(_grey(index, record)) for record in index.records])
    spread = features.std(0)
    features = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    names = sorted({r.domain for r in index.records})
    figure = Figure(figsize=(_ACROSS * _SIDE, len(names) * (_SIDE + 0.25)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), _ACROSS, squeeze=False)
    for name, row in zip(names, axes, strict=True):
        own = [k for k, r in enumerate(index.records) if r.domain == name]
        far = ((features[own] - features[own].mean(0)) ** 2).sum(1)
        for axis in row:
            axis.set_axis_off()
        for axis, k in zip(row, np.argsort(far, kind="stable")[:_ACROSS], strict=False):
            axis.imshow(_grey(index, index.records[own[k]]), cmap="gray", vmin=0, vmax=255)
        row[0].set_title(f"{name}: {len(own)} images", loc="left", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=110)
    write_bytes(path, buffer.getvalue())


def _grey(index: Index, record: Record) -> NDArray[np.uint8]:
    """(H, W); read again where it is drawn: all images at once may be more than the memory holds."""
    return record_image(index.root, record, channels=1)[..., 0]
