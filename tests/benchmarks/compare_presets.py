"""Train two presets on the same split of real CT and compare them case by case: `make compare`.

Real scans with marked tumours are few, crops of nodules many. So a case is a mosaic: a volume of a few slices, 4 x 4
crops wide, of patients whom no other case shows; a split by case is then a split by patient.
"""

import csv
import json
import sys
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from lungseg.dataset.layout import open_data_set
from lungseg.dataset.split import read_split
from lungseg.dataset.store import prepare
from lungseg.evaluation.metrics import bootstrap_interval, dice
from lungseg.scans.canvas import stack_from_display
from lungseg.segmentation.postprocessing import UINT8_ONE
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.fit import fit
from lungseg.training.slice_validation import THRESHOLDS
from lungseg.training.slices import read_slice
from tests.data_sets import write_json
from tests.narrowing import existing
from tests.phantoms import ras_affine, write_nifti

CROP_PX, TILES = 64, 4
SPACING_MM = (1.4, 1.4, 2.5)
READERS = 2
"""So many of four readers make a pixel tumour."""
FEWEST_CASES_HELD_OUT = 2


def patients_with_nodules(folder, depth):
    """Give the rows of the index, patient by patient, of nodules with at least so many slices."""
    rows = defaultdict(list)
    with (folder / "index.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if int(row["slices"]) >= depth:
                rows[row["patient"]].append(row["file"])
    return [rows[patient] for patient in sorted(rows)]


def read_crop(folder, file, depth):
    """Read the middle slices of a nodule: HU and mask, (depth, 64, 64) each."""
    grey, readers = (
        existing(cv2.imread(str(folder / f"{file}_{kind}.png"), cv2.IMREAD_GRAYSCALE)).reshape(-1, CROP_PX, CROP_PX)
        for kind in ("hu", "readers")
    )
    first = (len(grey) - depth) // 2
    middle = slice(first, first + depth)
    return grey[middle].astype(np.int16) * 6 - 1024, (readers[middle] >= 60 * READERS).astype(np.uint8)


def mosaic(crops):
    """Put slice stacks side by side."""
    return np.block([[list(crops[row * TILES : (row + 1) * TILES])] for row in range(TILES)]).reshape(
        len(crops[0]), TILES * CROP_PX, TILES * CROP_PX
    )


def write_mosaics(source, folder, cases, depth):
    """Write the data set: to each case its share of the patients, first a nodule of each, then their others."""
    patients = patients_with_nodules(source, depth)
    np.random.default_rng(0).shuffle(patients)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        shown = [file for files in zip_longest(*patients[number::cases]) for file in files if file]
        crops = [read_crop(source, file, depth) for file in shown[: TILES**2]]
        for name, stacks in zip(("imagesTr", "labelsTr"), zip(*crops, strict=True), strict=True):
            array = np.ascontiguousarray(stack_from_display(mosaic(stacks)))
            write_nifti(folder / name / f"mosaic_{number:02}.nii.gz", array, ras_affine(SPACING_MM))
    write_json(folder)


def train(preset, store, split, work, epochs):
    """Train as the product does; returns the checkpoint."""
    order = TrainingConfig(
        preset=preset, data=store, output=work / preset, name=preset, seed=1, epochs=epochs, split=split
    )
    fit(order, TrainingCallbacks(on_start=say, on_epoch=lambda it: say(f"{preset}: {it}")), resume=True)
    return order.output / f"{preset}.safetensors"


def probability_of(segmenter, case):
    """Apply a network to all slices of a case."""
    preprocessing = segmenter.card.preprocessing
    planes = np.stack([read_slice(case, k, preprocessing).transpose(2, 0, 1) for k in range(len(case.hu))])
    return segmenter.predict_slices(planes) / np.float32(UINT8_ONE)


def score(checkpoint, cases):
    """Score the cases held out at the threshold with the highest mean Dice; lungs aren't looked for in a mosaic."""
    segmenter = Segmenter.load(str(checkpoint), models=checkpoint.parent, device="cpu")
    answers, card = [probability_of(segmenter, case) for case in cases], segmenter.card

    def dice_at(threshold):
        return [dice(it >= threshold, np.array(case.tumour, bool)) for case, it in zip(cases, answers, strict=True)]

    threshold = max(THRESHOLDS, key=lambda at: np.mean(dice_at(at)))
    say(
        f"{card.name}: epoch {card.training.best_epoch}, mean Dice {np.mean(dice_at(0.5)):.3f} at 0.5, "
        f"{np.mean(dice_at(threshold)):.3f} at {threshold}"
    )
    return dict(zip([case.case for case in cases], dice_at(threshold), strict=True))


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def compare(
    work: Annotated[Path, typer.Argument(help="Folder for data set, store and runs; a comparison there goes on.")],
    source: Annotated[Path, typer.Option(help="Crops of nodules.")] = Path("../shared/data/lidc_slices"),
    presets: Annotated[tuple[str, str], typer.Option()] = ("baseline", "neighbours"),
    cases: Annotated[int, typer.Option(min=2 * FEWEST_CASES_HELD_OUT)] = 28,
    held_out: Annotated[int, typer.Option(min=FEWEST_CASES_HELD_OUT)] = 8,
    depth: Annotated[int, typer.Option(min=1, help="Slices a case.")] = 4,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
):
    """Train two presets on the same split and say whether the second is better."""
    folder, split = work / "data", work / "split.json"
    if not split.exists():
        write_mosaics(source, folder, cases, depth)
        names = [f"mosaic_{number:02}" for number in range(cases)]
        split.write_text(json.dumps({"train": names[held_out:], "validation": names[:held_out]}))
    store = prepare(open_data_set(folder), work / "store")
    unseen = [case for case in store.cases if case.case in read_split(split).validation]
    first, second = (score(train(preset, store.folder, split, work, epochs), unseen) for preset in presets)
    say(f"| case | {presets[0]} | {presets[1]} |\n|---|---|---|")
    for case in first:
        say(f"| {case} | {first[case]:.3f} | {second[case]:.3f} |")
    say(f"| mean | {np.mean(list(first.values())):.3f} | {np.mean(list(second.values())):.3f} |")
    differences = np.subtract(list(second.values()), list(first.values()))
    interval = bootstrap_interval(differences, within=(-1.0, 1.0))
    say(f"{presets[1]} - {presets[0]}: {differences.mean():+.3f}, 95 % interval {interval}")


if __name__ == "__main__":
    typer.run(compare)
