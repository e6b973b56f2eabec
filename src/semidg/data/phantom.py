"""Synthetic ultrasound from several scanners, with masks, in the folders layout: breasts with lesions, or hearts.

Every patient is drawn from the same distribution, in millimetres; scanners differ in how they see it
(``phantom_scanners``). Besides the lesion a picture of a breast holds things that look like one and are not: fat
lobules, small cysts, ducts, columns without contact. Hearts (``phantom_cardiac``) have four classes. It is made for
demonstrations and tests, not to measure a method's worth.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from semidg.data.phantom_cardiac import CLASS_NAMES, PALETTE, simulate_heart
from semidg.data.phantom_fields import smooth, step
from semidg.data.phantom_lesion import Lesion, draw_lesion
from semidg.data.phantom_scanners import (
    SCANNERS,
    Array,
    Grid,
    Scanner,
    Tissue,
    display,
    envelope,
    make_grid,
)
from semidg.data.spacing import COLUMNS as SPACING_COLUMNS
from semidg.data.spacing import FILE as SPACING_FILE
from semidg.errors import ConfigError, DataError

__all__ = ["CLASS_NAMES", "SCANNERS", "Anatomy", "Lesion", "Scanner", "draw_lesion", "simulate", "write_phantom"]

Anatomy = Literal["breast", "cardiac"]

FORMAT, VERSION = "semidg-phantom", 1
SMALLEST_SIZE = 32
# mean backscatter relative to glandular tissue, dB, and one-way attenuation, dB/cm/MHz
FAT_DB, SKIN_DB, MUSCLE_DB = -11.0, 5.0, -6.0
FAT_LOSS, GLAND_LOSS, MUSCLE_LOSS = 0.5, 0.7, 0.65


def simulate(scanner: Scanner, size: int, rng: np.random.Generator) -> tuple[Array, Array, dict[str, Any]]:
    """One picture of one new patient.

    Returns the image, (H, ``size``) uint8, its mask, (H, ``size``) uint8 of 0 and 255, and what was drawn; H follows
    from the scanner's field of view, pixels are square. The patient is drawn from a generator of its own, so the same
    state of ``rng`` gives the same patient on every scanner.
    """
    grid = make_grid(scanner, size)
    patient = np.random.default_rng(rng.integers(2**63))
    tops = {"skin": patient.uniform(1.2, 2.2), "gland": patient.uniform(5, 10)}
    tops["muscle"] = tops["gland"] + patient.uniform(10, 18)
    lesion = draw_lesion(tops["gland"], tops["muscle"], patient)
    tissue, distractors = _render(lesion, tops, grid, patient)
    gain_db = rng.normal(0, 1.5)
    image = display(scanner, grid, envelope(scanner, grid, tissue, rng), gain_db)

    rows = (np.arange(grid.height) + 0.5)[:, None] * grid.pixel_mm
    columns = grid.x[:, grid.margin : grid.margin + size]
    mask = np.where(lesion.distance(columns, rows) > 0, 255, 0).astype(np.uint8)
    parameters = {"lesion": asdict(lesion), "layers_mm": tops, "gain_db": gain_db, "distractors": distractors}
    return image, mask, parameters


def _render(
    lesion: Lesion, tops: dict[str, float], grid: Grid, rng: np.random.Generator
) -> tuple[Tissue, dict[str, int]]:
    """Tissue of a patient on a grid, and the number of distractors of each kind."""
    z, x = grid.z, grid.x
    waves = {name: smooth((1, 1), (12, 8), np.zeros((1, 1)), x, rng) for name in tops}
    border = {
        name: tops[name] + wave * (0.15 if name == "skin" else 1.3) + x * rng.normal(0, 0.03)
        for name, wave in waves.items()
    }

    # layers: an interface is a step over about 0.2 mm
    in_fat, in_gland, in_muscle = (step(z - border[name], 0.1) for name in ("skin", "gland", "muscle"))
    echo = SKIN_DB + (FAT_DB - SKIN_DB) * in_fat + (0 - FAT_DB) * in_gland + MUSCLE_DB * in_muscle
    loss = FAT_LOSS + (GLAND_LOSS - FAT_LOSS) * in_gland + (MUSCLE_LOSS - GLAND_LOSS) * in_muscle
    # septa between fat lobules: the zero lines of a smooth field form such a net
    septa = np.exp(-((smooth((24, 3), (24, 6), z, x, rng) / 0.18) ** 2))
    echo += 12 * septa * (in_fat - in_gland)
    # glandular tissue: streaks and patches; muscle: fibres along its fascia
    streaks = 2.5 * smooth((48, 0.9), (24, 3), z, x, rng) + 2.2 * smooth((16, 4), (16, 6), z, x, rng)
    echo += streaks * (in_gland - in_muscle)
    echo += 5 * smooth((64, 0.7), (12, 10), z - border["muscle"] + 5, x, rng) * in_muscle

    border["deep"] = border["muscle"] + rng.uniform(4, 8)
    interfaces = [
        # rough by about 0.03 mm, which is a good part of a wave length, and of uneven strength
        (
            border[name][0] + 0.03 * smooth((1, 1), (64, 1), z[:1], x, rng)[0],
            strength * np.abs(1 + 0.6 * smooth((1, 1), (16, 4), z[:1], x, rng)[0]),
        )
        for name, strength in (("skin", 1.5), ("gland", 1.0), ("muscle", 1.8), ("deep", 1.2))
    ]

    # an uneven shape: distractors are drawn in coordinates bent by up to some mm
    warped = z + 0.7 * smooth((16, 3), (24, 3), z, x, rng), x + 0.7 * smooth((16, 3), (24, 3), z, x, rng)
    counts = {name: int(rng.integers(0, most + 1)) for name, most in
              (("fat_lobules", 4), ("cysts", 1), ("ducts", 3), ("shadows", 2))}  # fmt: skip
    for _ in range(counts["fat_lobules"]):
        lobule = _blob(warped, tops, rng, rng.uniform(1.5, 5), rng.uniform(0.3, 0.5))
        echo += step(lobule, 0.15) * rng.uniform(-10, -6) * (in_gland - in_muscle)
        echo += 4 * np.exp(-((lobule / 0.2) ** 2)) * (in_gland - in_muscle)  # thin capsule all round
    for _ in range(counts["cysts"]):
        inside = step(_blob(warped, tops, rng, rng.uniform(0.8, 2.0), rng.uniform(0.6, 1)), 0.12)
        echo += (-30 - echo) * inside  # anechoic
        loss = loss - 0.7 * inside
    for _ in range(counts["ducts"]):
        centre = rng.uniform(tops["gland"] + 1, tops["muscle"] - 1) + 1.2 * smooth((1, 1), (16, 5), z[:1], x, rng)
        length = step(rng.uniform(2, 6) - np.abs(x - rng.uniform(-15, 15)), 0.5)
        echo += -14 * np.exp(-(((z - centre) / rng.uniform(0.3, 0.6)) ** 2)) * length
    contact = np.zeros_like(x)
    for _ in range(counts["shadows"]):
        away = np.abs(x - rng.uniform(-24, 24)) - rng.uniform(0.5, 2)
        contact = contact + rng.uniform(5, 16) * step(-away, rng.uniform(0.3, 0.8))

    return _add_lesion(lesion, Tissue(echo, loss, contact, tuple(interfaces)), z, x, rng), counts


def _add_lesion(lesion: Lesion, tissue: Tissue, z: Array, x: Array, rng: np.random.Generator) -> Tissue:
    """The tissue with the lesion in it: echo, attenuation, its walls; boundaries of other tissue end at it."""
    distance = lesion.distance(x, z)
    inside = step(distance, lesion.blur_mm)
    texture = 1.5 * smooth((32, 1.8), (24, 1.8), z, x, rng)
    echo = tissue.echo_db + (lesion.contrast_db + texture - tissue.echo_db) * inside
    echo += lesion.halo_db * np.exp(-(((distance + 0.8) / 0.7) ** 2))
    for _ in range(lesion.calcifications):
        radius, angle = 0.6 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        speck_x = lesion.x + radius * lesion.radius_x * np.cos(angle)
        speck_z = lesion.z + radius * lesion.radius_z * np.sin(angle)
        echo += 32 * np.exp(-((x - speck_x) ** 2 + (z - speck_z) ** 2) / (2 * 0.15**2))
    attenuation = np.maximum(tissue.attenuation + lesion.attenuation * inside, 0.05)
    interfaces = [(depth, amplitude * (lesion.distance(x[0], depth) < 0)) for depth, amplitude in tissue.interfaces]
    if lesion.capsule:
        hit = distance > 0
        strength = np.where(hit.any(axis=0), lesion.capsule, 0.0)
        for wall in (hit.argmax(axis=0), hit.shape[0] - 1 - hit[::-1].argmax(axis=0)):
            interfaces.append((z[wall, 0], strength))
    return Tissue(echo, attenuation, tissue.contact_db, tuple(interfaces))


def _blob(
    warped: tuple[Array, Array], tops: dict[str, float], rng: np.random.Generator, radius: float, aspect: float
) -> Array:
    """Signed distance in mm, about, to an ellipse at a random place of the glandular tissue, positive inside."""
    z, x = warped
    u = (x - rng.uniform(-18, 18)) / radius
    v = (z - rng.uniform(tops["gland"], tops["muscle"])) / (radius * aspect)
    return np.asarray((1 - np.hypot(u, v)) * radius * np.sqrt(aspect))


def write_phantom(
    out: Path,
    images_per_scanner: int = 40,
    size: int = 192,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    anatomy: Anatomy = "breast",
) -> None:
    """Write OUT/SCANNER/images/case_NNN.png, OUT/SCANNER/masks/case_NNN.png, OUT/spacing.csv and OUT/phantom.json.

    ``size`` is the width in pixels. anatomy: ``breast`` with masks of 0 and 255, or ``cardiac`` with palette masks of
    the four classes CLASS_NAMES. A case depends on (seed, scanner, number) and on the anatomy only.
    ``progress(done, total)`` is called after each case. An earlier phantom at ``out`` is replaced, anything else
    refused with DataError; a value out of range raises ConfigError. Everything is written beside ``out`` first and
    renamed at the end.
    """
    if images_per_scanner < 1:
        raise ConfigError(f"images per scanner: {images_per_scanner} is too few; give 1 or more")
    if size < SMALLEST_SIZE:
        raise ConfigError(f"size: {size} pixels are too few to show a lesion; give {SMALLEST_SIZE} or more")
    if seed < 0:
        raise ConfigError(f"seed: {seed} is negative; give 0 or more")
    out = out.expanduser().resolve()
    try:
        _check_replaceable(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            _write(new, images_per_scanner, size, seed, anatomy, progress)
            _check_replaceable(out)  # nobody has put anything there in the meantime
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    except OSError as error:
        raise DataError(
            f"{out}: cannot write the phantom ({error.strerror or error}); choose another folder"
        ) from error


def _write(
    root: Path,
    images_per_scanner: int,
    size: int,
    seed: int,
    anatomy: Anatomy,
    progress: Callable[[int, int], None] | None,
) -> None:
    draw = simulate_heart if anatomy == "cardiac" else simulate
    cases: dict[str, Any] = {}
    total = images_per_scanner * len(SCANNERS)
    for name, scanner in SCANNERS.items():
        folders = [root / name / part for part in ("images", "masks")]
        for folder in folders:
            folder.mkdir(parents=True)
        for number in range(images_per_scanner):
            # crc32, not hash(): the same in every process
            rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
            image, mask, parameters = draw(scanner, size, rng)
            pictures = Image.fromarray(image), Image.fromarray(mask)
            if anatomy == "cardiac":
                pictures[1].putpalette(PALETTE)  # the file holds the class numbers, a viewer shows colours
            for folder, picture in zip(folders, pictures, strict=True):
                picture.save(folder / f"case_{number:03d}.png")
            cases[f"{name}/case_{number:03d}"] = parameters
            if progress is not None:
                progress(len(cases), total)
    # pixels are square, and of one size on a scanner
    pixel_mm = {name: make_grid(scanner, size).pixel_mm for name, scanner in SCANNERS.items()}
    lines = [",".join(SPACING_COLUMNS), *(f"{name},{mm},{mm}" for name, mm in pixel_mm.items())]
    (root / SPACING_FILE).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    description = {
        "format": FORMAT,
        "version": VERSION,
        "seed": seed,
        "size": size,
        "images_per_scanner": images_per_scanner,
        **({"anatomy": anatomy, "class_names": CLASS_NAMES} if anatomy == "cardiac" else {}),
        "scanners": {name: asdict(scanner) for name, scanner in SCANNERS.items()},
        "cases": cases,
    }
    (root / "phantom.json").write_text(json.dumps(description, indent=1) + "\n", "utf-8")


def _check_replaceable(out: Path) -> None:
    """Raise DataError unless ``out`` is absent, an empty folder, or a phantom and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is not a folder; choose another place for the phantom")
    if not any(out.iterdir()):
        return
    try:
        description = json.loads((out / "phantom.json").read_text("utf-8"))
        known = description["format"] == FORMAT
        cases = [name.split("/") for name in description["cases"]]
        own = {f"{scanner}/{part}/{case}.png" for scanner, case in cases for part in ("images", "masks")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known, own = False, set()
    if not known:
        raise DataError(f"{out}: is not empty and not a phantom; choose another folder or empty it")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    extra = sorted(found - own - {"phantom.json", SPACING_FILE, "index.csv"})
    if extra:
        raise DataError(
            f"{out}: holds {extra[0]}, which is no part of a phantom; move it away or choose another folder"
        )
