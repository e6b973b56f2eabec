"""A volume to be predicted, whatever its files are: its planes as images, and results with its geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from semidg.data import volume
from semidg.data.dicom_series import Series, read_files
from semidg.data.nifti_save import save_like, save_new
from semidg.data.reading import in_channels, plane_image
from semidg.data.voxels import read_header
from semidg.report.prediction_jobs import Volume
from semidg.types import Frame

Voxels = npt.NDArray[np.uint8]


class VolumeFile(Protocol):
    """shape: of the voxels that are written."""

    shape: tuple[int, ...]

    def image(self, frame: Frame | None, channels: int) -> Voxels:
        """A plane, (H, W, channels)."""
        ...

    def plane(self, voxels: Voxels, frame: Frame | None) -> Voxels:
        """The same plane of voxels in the written shape, a view (H, W)."""
        ...

    def save(self, path: Path, voxels: Voxels, scale: float = 1.0) -> None:
        """Write voxels, of which a reader sees those times scale, as .nii.gz."""
        ...


def open_volume(work: Volume) -> VolumeFile:
    """The files of the work; raises DataError that names the file."""
    return _File(work.job.image) if work.series is None else _Dicom(work.series, work.job.image.parent)


class _File:
    """A volume in one file; results have its geometry, of a NIfTI file bit for bit."""

    def __init__(self, path: Path) -> None:
        self._path, self._header = path, read_header(path)
        self.shape = self._header.shape

    def image(self, frame: Frame | None, channels: int) -> Voxels:
        return plane_image(self._path, frame, channels)

    def plane(self, voxels: Voxels, frame: Frame | None) -> Voxels:
        if frame is not None and frame.turned:
            voxels = volume.turned(voxels, self._header, self._path)
        return volume.plane(voxels, frame)

    def save(self, path: Path, voxels: Voxels, scale: float = 1.0) -> None:
        grid = self._header.grid
        if grid is None:
            save_like(path, self._path, voxels, scale)
        else:
            save_new(path, voxels.reshape(grid.dims, order="F"), grid.affine, grid.sizes, scale)


class _Dicom:
    """A DICOM series, decoded as a whole; results are (columns, rows, slices) with the affine of its headers."""

    def __init__(self, series: Series, folder: Path) -> None:
        self._stack = read_files([folder / name for name in series.files])
        self._series = series
        self.shape: tuple[int, ...] = (series.width, series.height, len(series.files))

    def image(self, frame: Frame | None, channels: int) -> Voxels:
        return in_channels(self._stack[0 if frame is None else frame.number], channels)

    def plane(self, voxels: Voxels, frame: Frame | None) -> Voxels:
        return volume.plane(voxels, frame)

    def save(self, path: Path, voxels: Voxels, scale: float = 1.0) -> None:
        row_mm, column_mm = self._series.spacing or (1.0, 1.0)
        sizes = (column_mm, row_mm, self._series.slice_mm or 1.0)
        save_new(path, voxels, self._series.affine, sizes, scale)
