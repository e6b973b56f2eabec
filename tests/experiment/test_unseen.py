"""The preset for images of one's own: all masks there are, the rest unlabelled, labelled images in strong views."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from semidg.config_file import load_config
from semidg.experiment.run import train


def test_all_masks_are_labels_and_images_without_one_are_unlabelled(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "scans"
    shutil.copytree(phantom, data)
    hidden = sorted(data.rglob("masks/*.png"))[::2]
    for mask in hidden:
        mask.unlink()
    config = load_config("unseen")
    assert (config.method.name, config.labelled_view.probability, config.labelled) == ("fixmatch", 1.0, 1.0)
    small = {
        "data": config.data.model_copy(update={"root": data, "size": 32}),
        "network": config.network.model_copy(update={"encoder": "tu-test_efficientnet", "weights": "none"}),
        "trainer": config.trainer.model_copy(update={"max_steps": 2, "eval_every": 2, "checkpoint_every": 2}),
    }
    summary = train(config.model_copy(update=small), tmp_path / "run")
    counts = json.loads((tmp_path / "run/split/split.json").read_text("utf-8"))["counts"]
    labelled = sum(counts[part]["images"] for part in ("labelled", "validation", "test"))
    assert counts["unlabelled"]["images"] == len(hidden)
    assert labelled + len(hidden) == len(list(data.rglob("images/*.png")))
    assert summary["result"]["overall"]["n"] == counts["test"]["images"] > 0
