"""Peak resident memory of a training and of predicting a folder, against the number of images and the batch.

Each point is a process of its own, but for the number of images predicted, which is looked at on the way. A training
is its preparation (index, cache), its last steps, in which every term is on, and an epoch of its loader, which touches
every row of the image cache. The cache is a mapped file: its pages count as resident as long as nobody else wants the
memory. ``without the mapped files`` leaves such pages out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure, figure
from benchmarks.pictures import write_images
from benchmarks.process import in_child, mapped_mb, peak_mb


def training(folder: str, batch: int, quick: bool, steps: int) -> dict[str, float | None]:
    """Peak memory in MB of a training of the preset on FOLDER/data, and the mapped part of it at the end."""
    from benchmarks.training import configure, train
    from semidg.experiment.loaders import training_loader
    from semidg.experiment.prepare import prepare

    config = configure(Path(folder), "dual_level", quick, batch_labelled=batch, batch_unlabelled=batch)
    prepared = prepare(config)
    trainer = config.trainer
    batches = training_loader(prepared.cache, prepared.split, config, trainer.max_steps - steps)
    train(config, batches)
    epoch = min(trainer.max_steps, len(prepared.cache) // batch)
    for _ in training_loader(prepared.cache, prepared.split, config, trainer.max_steps - epoch):
        pass
    return {"peak": peak_mb(), "mapped": mapped_mb()}


def write_model(path: str, quick: bool) -> None:
    """A model of the preset as it is drawn."""
    from benchmarks.training import configure, new_method
    from semidg.experiment.bundle import Bundle, save_bundle

    config = configure(Path(), "dual_level", quick)
    ensemble = new_method(config).ensemble()
    save_bundle(Path(path), Bundle(ensemble, config.network, config.data.size, config.data.channels, {}))


def predicting(model: str, images: str, batch: int, marks: Sequence[int]) -> list[dict[str, float | None]]:
    """Peak memory in MB until so many images of a folder, each of ``marks``, are predicted as by ``semidg predict``."""
    import torch

    from semidg.config import TrainerConfig
    from semidg.experiment.device import set_threads
    from semidg.report.prediction_jobs import find_jobs
    from semidg.report.prediction_shards import Settings, predict_shards
    from semidg.report.predictor import Options

    set_threads(TrainerConfig())
    found: list[dict[str, float | None]] = []

    def look(done: int, _: int) -> None:
        while len(found) < len(marks) and done >= marks[len(found)]:
            found.append({"peak": peak_mb(), "mapped": mapped_mb()})

    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        settings = Settings(Path(model), Options(batch, torch.get_num_threads()))
        predicted = predict_shards(settings, find_jobs([Path(images)], out), out, progress=look)
    if predicted.problems or len(found) < len(marks):
        raise RuntimeError(f"{predicted.files} images were predicted, with {predicted.problems[:1]}")
    return found


def slope(counts: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the least-squares line through values over counts."""
    middle = sum(counts) / len(counts)
    return sum((x - middle) * y for x, y in zip(counts, values, strict=True)) / sum((x - middle) ** 2 for x in counts)


def against(what: str, counts: Sequence[int], found: Sequence[dict[str, float | None]], each: int) -> list[Figure]:
    """What memory grows by with ``each`` more of what is counted, fitted, with and without mapped files; and the peak
    at the smallest count."""
    unit = f"MB per {each:,}" if each > 1 else "MB"
    peaks = [float(one["peak"] or 0) for one in found]
    details = {str(count): peak for count, peak in zip(counts, peaks, strict=True)}
    figures = [figure(f"{what}: growth of the peak", [each * slope(counts, peaks)], unit=unit, details=details),
               figure(f"{what}: peak at {counts[0]:,}", [peaks[0]], unit="MB")]  # fmt: skip
    if None not in [one["mapped"] for one in found]:
        own = [float(one["peak"] or 0) - float(one["mapped"] or 0) for one in found]
        details = {str(count): size for count, size in zip(counts, own, strict=True)}
        name = f"{what}: growth without the mapped files"
        figures.insert(1, figure(name, [each * slope(counts, own)], unit=unit, details=details))
    return figures


def figures(quick: bool) -> list[Figure]:
    """Training of dual_level in the preset, and prediction with its networks; images of 128 x 128 pixels."""
    side, steps = (64, 1) if quick else (128, 3)
    trained, batches = ((40, 80), (2, 4)) if quick else ((500, 1000, 2000, 4000), (4, 8, 16))
    predicted = (8, 16) if quick else (1000, 2000, 3000, 5000)  # before, Python and PyTorch still grow to their size
    with tempfile.TemporaryDirectory() as name:
        folder, data, model = Path(name), Path(name) / "data", str(Path(name) / "model.safetensors")
        of_training: list[Any] = []
        for before, count in zip((0, *trained), trained, strict=False):
            write_images(data, count, side, before)
            if before == 0:  # fewest images, all batches; the first point is that of the preset, as in the next fit
                of_batch = [in_child("benchmarks.memory:training", name, b, quick, steps) for b in batches]
                of_training.append(of_batch[0])
            else:
                of_training.append(in_child("benchmarks.memory:training", name, batches[0], quick, steps))
        in_child("benchmarks.memory:write_model", model, quick)
        write_images(folder / "new", predicted[-1], side)
        new = str(folder / "new")
        of_prediction = in_child("benchmarks.memory:predicting", model, new, 16, predicted)
        of_size = [in_child("benchmarks.memory:predicting", model, new, b, predicted[:1])[0] for b in (4, 64)]
    return [
        *against("training, images", trained, of_training, 1000),
        *against("training, batch of each kind", batches, of_batch, 1),
        *against("predicting, images", predicted, of_prediction, 1000),
        *against("predicting, batch", (4, 16, 64), [of_size[0], of_prediction[0], of_size[1]], 1),
    ]
