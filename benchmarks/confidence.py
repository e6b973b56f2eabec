"""Which confidence finds the errors? Candidates of a pixel and of an image, on a part on which settings may be chosen.

    python -m benchmarks.confidence runs/sup-0 runs/dual-0 [--part validation] [--root DATA]

Pixels: area under the ROC curve, and average precision, with which 1 - confidence finds the wrong pixels of the mean
prediction at the size the networks see, pooled over the images. Images: correlation with the real Dice at the original
size, the mean absolute error of a straight line to it (each image left out of its own line), and the area under the
risk-coverage curve (smaller is better; with that of a random order and of the real Dice itself).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata

from semidg.augmentation.fourier import reference_view
from semidg.evaluation.calibration import pearson, risk_coverage
from semidg.evaluation.confidence import temper, variance
from semidg.evaluation.predict import label_map, to_original
from semidg.evaluation.protocols import PROTOCOLS
from semidg.experiment.bundle import load_bundle, to_inference
from semidg.experiment.prepare import prepare
from semidg.experiment.run import open_config
from semidg.experiment.scoring import overlap_dice, scored_truth

Floats = npt.NDArray[np.float64]


def main() -> None:
    """Print both tables of each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--part", default="validation", choices=["validation", "unlabelled", "test"])
    parser.add_argument("--root", type=Path, default=None)
    options = parser.parse_args()
    for run in options.runs:
        pixels, images, wrong, dice = measure(run, options.part, options.root)
        print(f"\n{run.name}, {options.part} part, {len(dice)} images\n")
        print("| confidence of a pixel | AUROC of errors | average precision |\n|---|---|---|")
        for name, values in pixels.items():
            print(f"| {name} | {auroc(-values, wrong):.3f} | {average_precision(-values, wrong):.3f} |")
        curve = risk_coverage(dice, dice)
        print(f"\nrandom order: {curve['aurc_random']:.3f}, the real Dice: {curve['aurc_oracle']:.3f}\n")
        print("| confidence of an image | Pearson | Spearman | error of a line | area under risk-coverage |")
        print("|---|---|---|---|---|")
        for name, scores in images.items():
            rank = pearson(rankdata(scores), rankdata(dice))
            error, area = line_error(scores, dice), risk_coverage(scores, dice)["aurc"]
            print(f"| {name} | {pearson(scores, dice):.2f} | {rank:.2f} | {error:.3f} | {area:.3f} |")


def measure(
    run: Path, part: str, root: Path | None
) -> tuple[dict[str, Floats], dict[str, Floats], npt.NDArray[np.bool_], Floats]:
    """(confidence of all pixels by name, of all images by name, which pixels are wrong, Dice of all images)."""
    config = open_config(run)
    if root is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": root})})
    prepared = prepare(config, run)
    bundle = load_bundle(run / "model" / "model.safetensors")
    if bundle.references is None:
        raise SystemExit(f"{run}: its model has no calibration yet; run semidg evaluate {run} first")
    ensemble = to_inference(bundle.ensemble, torch.device("cpu"))
    pixels: dict[str, list[Floats]] = {}
    images: dict[str, list[float]] = {}
    wrong, dice = [], []
    for record in [r for r in prepared.split.parts()[part] if r.labelled]:
        row = prepared.cache.row(record.id)
        with torch.inference_mode():
            x = torch.from_numpy(np.array(prepared.cache.images[row])).permute(2, 0, 1)[None].float() / 255
            plain = ensemble.predict_each(x)[:, 0]
            views = torch.stack(
                [
                    ensemble.predict_each(reference_view(x, window, bundle.view_lam, bundle.fourier.window))[:, 0]
                    for window in bundle.references
                ]
            )
        mean = plain.mean(0)
        tempered = temper(mean, bundle.calibration.temperature)
        prediction = label_map(mean)
        maps = {
            "probability": mean.amax(0),
            "networks, exp(-V_net)": variance(plain).neg().exp(),
            "views, exp(-V_view)": (variance(plain, views) - variance(plain)).neg().exp(),
            "variance, exp(-V_view - V_net)": variance(plain, views).neg().exp(),
            "probability x variance": mean.amax(0) * variance(plain, views).neg().exp(),
        }
        for name, values in maps.items():
            pixels.setdefault(name, []).append(values.numpy().astype(np.float64).ravel())
        inside = torch.from_numpy(prediction > 0)
        scores = {
            f"mean over the prediction of {name}": float(values[inside].mean()) if inside.any() else 0.0
            for name, values in maps.items()
        }
        scores |= {"soft Dice": soft_dice(mean), "soft Dice, calibrated": soft_dice(tempered)}
        scores["Dice between the networks"] = agreement(plain) if len(plain) > 1 else 1.0
        for name, value in scores.items():
            images.setdefault(name, []).append(value)
        truth = scored_truth(record, prepared.index.root, config.network.classes, PROTOCOLS["grouped"], 0)
        full = label_map(to_original(mean, record.height, record.width))
        dice.append(overlap_dice(full, truth, config.network.classes))
        wrong.append((prediction != np.asarray(prepared.cache.masks[row])).ravel())
    joined = {name: np.concatenate(values) for name, values in pixels.items()}
    return joined, {k: np.array(v) for k, v in images.items()}, np.concatenate(wrong), np.array(dice)


def soft_dice(probabilities: torch.Tensor) -> float:
    """2 sum_M p / (|M| + sum p), M the predicted pixels; mean over the foreground classes, 0 for an empty M."""
    labels, values = probabilities.argmax(0), []
    for number in range(1, len(probabilities)):
        p, inside = probabilities[number].double(), labels == number
        values.append(float(2 * p[inside].sum() / (inside.sum() + p.sum())))
    return float(np.mean(values))


def agreement(plain: torch.Tensor) -> float:
    """Dice between the label maps of the first two networks, (N, K, H, W)."""
    a, b = (label_map(p) for p in plain[:2])
    return overlap_dice(a, b, plain.shape[1])


def line_error(scores: Floats, dice: Floats) -> float:
    """Mean absolute error of the least-squares line, each image predicted by the line of the others."""
    design = np.column_stack([np.ones(len(scores)), scores])
    hat = design @ np.linalg.pinv(design)
    return float(np.abs((dice - hat @ dice) / (1 - np.diag(hat))).mean())


def auroc(score: Floats, hit: npt.NDArray[np.bool_]) -> float:
    """Probability that a hit scores above a miss, ties half."""
    ranks = rankdata(score)
    n = int(hit.sum())
    return float((ranks[hit].sum() - n * (n + 1) / 2) / (n * (len(hit) - n)))


def average_precision(score: Floats, hit: npt.NDArray[np.bool_]) -> float:
    """Mean over the hits of the precision at their place."""
    ordered = hit[np.argsort(-score, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1))[ordered].mean())


if __name__ == "__main__":
    main()
