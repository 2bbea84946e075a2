"""Data sets of chest phantoms in the layouts that people have them in."""

import json
from pathlib import Path

import numpy as np

from tests.phantoms import LESION_INDEX, chest, ras_affine, write_nifti

OTHER_SPOTS = (LESION_INDEX, (30, 40, 18), (66, 36, 24), (30, 44, 22), (64, 44, 20))
"""Where the lesions of successive cases lie, each inside a lung."""


def write_pair(folder: Path, case="lung_001", codes="LPS", *, spot=LESION_INDEX, edit=None, **chest_arguments):
    """Write a scan and its mask; `edit(hu, mask)` may change both arrays, in place or by what it returns."""
    hu, lesion = chest(lesion_index=spot, **chest_arguments)
    mask = lesion.astype(np.uint8)
    if edit:
        hu, mask = edit(hu, mask) or (hu, mask)
    affine = ras_affine(chest_arguments.get("spacing_mm", (3.0, 3.2, 6.0)))
    for name, array in (("imagesTr", hu), ("labelsTr", mask)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_nifti(folder / name / f"{case}.nii.gz", array, affine, codes)


def write_data_set(folder: Path, cases=3, *, with_json=True, unlabelled=0):
    """Write a data set of a few cases, each with its lesion elsewhere; returns the folder."""
    for number in range(cases):
        again, spot = divmod(number, len(OTHER_SPOTS))
        write_pair(folder, f"lung_{number + 1:03}", spot=OTHER_SPOTS[spot], lesion_hu=30 + again)
    for number in range(unlabelled):
        (folder / "imagesTs").mkdir(exist_ok=True)
        hu, _ = chest(lesion_radius_mm=1.0, lesion_hu=200 + number)
        write_nifti(folder / "imagesTs" / f"lung_{number + 101}.nii.gz", hu, ras_affine(), "LPS")
    if with_json:
        write_json(folder)
    return folder


def write_json(folder: Path, **changes):
    """Write the `dataset.json` of what lies in a folder, as the Medical Segmentation Decathlon has it."""
    training = [
        {"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"}
        for path in sorted((folder / "imagesTr").glob("[!.]*.nii.gz"))
    ]
    test = [f"./imagesTs/{path.name}" for path in sorted((folder / "imagesTs").glob("[!.]*.nii.gz"))]
    card = {
        "name": "Lung",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "cancer"},
        "numTraining": len(training),
        "training": training,
        "test": test,
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(card))
