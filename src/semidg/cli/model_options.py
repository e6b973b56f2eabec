"""What predict and adapt have in common: a trained model, and images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import tyro

from semidg.data_config import DataConfig

if TYPE_CHECKING:
    from semidg.experiment.bundle import Bundle


class Opened(NamedTuple):
    """A model, its file, and how the volumes of its training were cut and turned, or as the user says."""

    bundle: Bundle
    path: Path
    slice_axis: Literal["auto", "x", "y", "z"]
    orientation: Literal["stored", "patient"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A model, images and a device."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, or a model.safetensors."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER ...")]
    """Image files and folders, with their sub-folders. Masks that are called so (NAME_mask.png, or in a folder such as
    masks, labels or GT beside images of their names, or of names alike) are passed over."""
    slice_axis: Literal["auto", "x", "y", "z"] | None = None
    """Axis across which the slices of a volume lie; by default that of the training, where RUN is a run folder, else
    auto: that of the largest voxel spacing."""
    orientation: Literal["stored", "patient"] | None = None
    """Slices as a volume stores them, or turned by its affine to how they lie in the patient; by default that of
    the training, where RUN is a run folder, else stored."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""

    def open(self) -> Opened:
        """Read the model; raises RunError that names the file."""
        from semidg.experiment.bundle import load_bundle
        from semidg.experiment.run import open_config

        path, trained = self.run, DataConfig()
        if not path.is_file():
            trained = open_config(self.run).data
            path = self.run / "model" / "model.safetensors"
        axis, orientation = self.slice_axis or trained.slice_axis, self.orientation or trained.orientation
        return Opened(load_bundle(path), path, axis, orientation)
