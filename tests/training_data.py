"""A small data folder with all three sources, in the layout that training reads."""

import csv

import cv2
import numpy as np

from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card import NetworkShape
from lungseg.training.presets import CompositionConfig, OptimisationConfig, ScenePreset
from tests.phantoms import chest, ras_affine, write_nifti

SCANS, NODULES, CROPS = "chest_ct_msd_layout", "lidc_nodules_3d", "lidc_slices"
PATIENTS = [f"LIDC-IDRI-{number:04d}" for number in (2, 3, 5, 8, 13, 21, 34, 55, 89, 144)]
NODULE_SHAPE = (19, 30, 41)
CROP_SLICES = 5

TINY = ScenePreset(
    name="tiny",
    summary="Small and quick.",
    network=NetworkShape(width=4, depth=2, channels=3),
    preprocessing=Preprocessing(size=64, channels=3, hu_floor=-1000.0, hu_ceiling=500.0, hu_scale=500.0),
    optimisation=OptimisationConfig(epochs=2, steps=3, batch=4, decay="cosine", dice=1.0, ema=0.9),
    composition=CompositionConfig(side_px=32),
    test_share=0.2,
    validation_share=0.4,
)


def write_data(folder):
    write_scans(folder / SCANS)
    write_nodules(folder / NODULES)
    write_crops(folder / CROPS)
    return folder


def write_scans(folder):
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    hu, lesion = chest()
    for name in ("lung_102", "lung_103"):
        write_nifti(folder / "imagesTr" / f"{name}.nii.gz", hu, ras_affine(), "LPS")
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", lesion.astype(np.uint8), ras_affine(), "LPS")
    (folder / "imagesTr" / "._lung_102.nii.gz").write_bytes(b"litter")
    write_nifti(folder / "imagesTs" / "lung_201.nii.gz", hu, ras_affine(), "LPS")


def write_nodules(folder):
    depth, height, width = NODULE_SHAPE
    mask = np.zeros(NODULE_SHAPE, np.uint8)
    mask[7:12, 11:18, 15:26] = 255
    grey = np.where(mask, 180, 30).astype(np.uint8)
    rows = []
    for number, patient in enumerate(PATIENTS):
        _write_strip(folder / f"{patient}_hu.png", grey)
        _write_strip(folder / f"{patient}_mask.png", mask)
        rows.append([patient, patient, depth, height, width, 1.0, 0.385, int(number == 0)])
    _write_index(folder, "file,patient,depth,height,width,voxel_mm,nodule_ml,touches_border", rows)


def write_crops(folder):
    readers = np.zeros((CROP_SLICES, 64, 64), np.uint8)
    readers[:, 27:37, 26:40] = 60
    readers[1:4, 28:36, 27:39] = 180
    grey = np.where(readers >= 120, 180, 30).astype(np.uint8)
    rows = []
    for patient in PATIENTS:
        _write_strip(folder / f"{patient}_0_hu.png", grey)
        _write_strip(folder / f"{patient}_0_readers.png", readers)
        rows.append([f"{patient}_0", patient, 0, CROP_SLICES, 3, 1.4, 2.5])
    _write_index(folder, "file,patient,nodule,slices,readers_max,pixel_mm,slice_spacing_mm", rows)


def _write_strip(path, slices):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), slices.reshape(-1, slices.shape[2]))


def _write_index(folder, header, rows):
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])
