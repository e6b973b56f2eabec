"""Images a second of ``semidg predict``, from files to written pictures, against the forward of its networks alone.

The verb is called in this process as from the command line: it loads the model, reads PNG files and writes masks,
confidence maps, overlays, notes and the table. The other side is the ensemble as it was trained, on the same images in
memory, in the same batches; and, stricter, in the form in which it predicts, BatchNorm folded into the convolutions.
All have the same number of threads, OMP_NUM_THREADS or the cores of this process, which is kept to as many cores. The
model is the preset busi-lite after a few steps on the images of the phantom, so that masks look like masks.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.figure import Figure, figure
from semidg.cli import main as semidg
from semidg.config import TrainerConfig
from semidg.config_file import load_config
from semidg.data.images import read_image, read_mask, resize_image, resize_mask
from semidg.data.phantom import write_phantom
from semidg.experiment.bundle import Bundle, load_bundle, save_bundle, to_inference
from semidg.experiment.device import set_threads
from semidg.networks.ensemble import Ensemble
from semidg.networks.factory import make_pair

BATCH = 16
TARGET = 0.8
DIFFERENT = 100  # pictures drawn, of which the files are copies


def figures(quick: bool) -> list[Figure]:
    """The share of the forward's speed that ``semidg predict`` has, with all pictures and with masks alone."""
    different, count, rounds, steps = (4, 20, 2, 1) if quick else (DIFFERENT, 2000, 3, 40)
    with tempfile.TemporaryDirectory() as temporary, kept_to_threads():
        folder = Path(temporary)
        write_phantom(folder / "phantom", images_per_scanner=different // 4, size=64 if quick else 192)
        images = sorted((folder / "phantom").glob("*/images/*.png"))
        copy_images(images, folder / "pictures", count)
        write_model(folder / "model.safetensors", images, steps)
        return measure(folder / "model.safetensors", folder / "pictures", folder / "out", rounds)


def measure(model: Path, pictures: Path, out: Path, rounds: int) -> list[Figure]:
    """The figures of one folder of PNG files."""
    bundle = load_bundle(model)
    plain: Ensemble = bundle.ensemble.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folded = to_inference(bundle.ensemble, torch.device("cpu"))
    files = sorted(pictures.iterdir())
    batches = as_batches(files, bundle)

    def forward(ensemble: Ensemble) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode():
                for k in range(0, len(files), BATCH):
                    ensemble.predict(batches[k // BATCH % len(batches)])

        return run

    def verb(*options: str) -> Callable[[], None]:
        def run() -> None:
            shutil.rmtree(out, ignore_errors=True)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                code = semidg(
                    ["predict", str(model), str(pictures), "--out", str(out), "--batch", str(BATCH), *options]
                )
            assert code == 0, "a picture could not be predicted"
            assert len(list(out.glob("*_mask.png"))) == len(files)

        return run

    sides = {
        "forward": forward(plain),
        "folded forward": forward(folded),
        "predict": verb(),
        "masks": verb("--masks-only"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(rounds):
        for name in sorted(sides, reverse=bool(k % 2)):
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
    details = {
        "images": len(files),
        "pixels": list(read_image(files[0], 1).shape[:2]),
        "side of the networks": bundle.size,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "images a second": {name: round(len(files) / float(np.median(values)), 1) for name, values in seconds.items()},
    }
    found = []
    for name, over, label, target in (
        ("predict", "forward", "predict over forward", TARGET),
        ("masks", "forward", "masks alone over forward", None),
        ("predict", "folded forward", "predict over folded forward", None),
        ("masks", "folded forward", "masks alone over folded forward", None),
        ("folded forward", "forward", "folded forward over forward", None),
    ):
        ratios = [one / other for one, other in zip(seconds[over], seconds[name], strict=True)]
        found.append(figure(label, ratios, target=target, at_most=False, details=details))
    return found


def copy_images(files: Sequence[Path], folder: Path, count: int) -> None:
    """``count`` files in one folder, copies of ``files`` in turn."""
    folder.mkdir()
    for number in range(count):
        shutil.copyfile(files[number % len(files)], folder / f"{number:05}.png")


def as_batches(files: Sequence[Path], bundle: Bundle) -> list[Tensor]:
    """The first files, as the networks see them, (BATCH, C, size, size) in channels-last."""
    images = [
        resize_image(read_image(file, bundle.channels), bundle.size) for file in files[: DIFFERENT // BATCH * BATCH]
    ]
    batches = [np.stack(images[k : k + BATCH]) for k in range(0, len(images), BATCH)]
    return [
        (torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        for batch in batches
    ]


def write_model(path: Path, images: Sequence[Path], steps: int) -> None:
    """The two networks of busi-lite after ``steps`` steps of cross-entropy on images of a phantom."""
    config = load_config("busi-lite")
    torch.manual_seed(0)
    size, channels = config.data.size, config.data.channels
    ensemble = Ensemble(make_pair(config.network, channels, 0, 2)).to(memory_format=torch.channels_last).train()
    masks = [path.parent.parent / "masks" / path.name for path in images]
    generator = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(ensemble.parameters(), lr=1e-3)
    for _ in range(steps):
        chosen = generator.choice(len(images), min(8, len(images)), replace=False)
        x = np.stack([resize_image(read_image(images[k], channels), size) for k in chosen])
        y = np.stack([resize_mask(read_mask([masks[k]]), size) for k in chosen])
        seen = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        truth = torch.from_numpy(y).long()
        loss = torch.stack([F.cross_entropy(network(seen).logits, truth) for network in ensemble.networks]).sum()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    save_bundle(path, Bundle(ensemble.eval(), config.network, size, channels, {}))


@contextlib.contextmanager
def kept_to_threads() -> Iterator[None]:
    """Inside it this process has as many cores as PyTorch has threads."""
    before = torch.get_num_threads()
    set_threads(TrainerConfig())
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(cores) > torch.get_num_threads():
        os.sched_setaffinity(0, sorted(cores)[: torch.get_num_threads()])
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)
