"""Films, decoded again by another reader than the one that wrote them: frame by frame, colour by colour."""

import tracemalloc

import cv2
import numpy as np
import pytest

from lungseg.errors import GridMismatchError, StorageError
from lungseg.figures.video import FOOT, STRIP, Film
from lungseg.scans.geometry import Grid
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB, WINDOWS
from lungseg.scans.volume import Volume
from tests.phantoms import LESION_INDEX, SHAPE, SPACING_MM, chest, ras_affine, write_chest, write_nifti

CLOSE = 40
"""How far a colour may be off in a film: H.264 keeps one colour for each two by two pixels."""
SIDES = {"mp4": 512, "gif": 384}


@pytest.fixture(scope="module")
def scene():
    hu, lesion = chest()
    return Volume(hu, Grid(SHAPE, ras_affine())), lesion


@pytest.fixture(scope="module")
def films(scene, tmp_path_factory):
    """The same film in both formats, as arrays (frames, rows, columns, RGB)."""
    volume, lesion = scene
    reference = np.roll(lesion, 6, axis=2)
    folder = tmp_path_factory.mktemp("films")
    for kind in SIDES:
        Film(volume, lesion, reference).write(folder / f"film.{kind}")
    assert sorted(path.name for path in folder.iterdir()) == ["film.gif", "film.mp4"]
    return {kind: decoded(folder / f"film.{kind}") for kind in SIDES}, lesion, reference


def decoded(path):
    reader = cv2.VideoCapture(str(path))
    frames = []
    while (answer := reader.read())[0]:
        frames.append(cv2.cvtColor(answer[1], cv2.COLOR_BGR2RGB))
    reader.release()
    return np.stack(frames)


def pixels_of(picture, rgb):
    """Pixels of about a colour."""
    return np.abs(picture.astype(int) - rgb).max(axis=-1) < CLOSE


@pytest.mark.parametrize("kind", SIDES)
def test_a_film_has_a_frame_for_each_slice(films, kind):
    side = SIDES[kind]
    assert films[0][kind].shape == (SHAPE[2], side + FOOT, side, 3)


@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("rgb", [MASK_RGB, REFERENCE_RGB])
def test_outline_and_mark_are_on_lesion_slices_alone(films, kind, rgb):
    frames, lesion, reference = films[0][kind], films[1], films[2]
    side = SIDES[kind]
    shown = pixels_of(frames[:, :side], rgb)
    touched = (lesion if rgb is MASK_RGB else reference).any(axis=(0, 1))
    mark, picture = shown[:, side - 60 :, :20], shown[:, : side - 60]
    assert (mark.sum(axis=(1, 2)) > 40).tolist() == touched.tolist()
    assert (picture.sum(axis=(1, 2)) > 40).tolist() == touched.tolist()


@pytest.mark.parametrize("kind", SIDES)
def test_outline_runs_around_the_lesion_as_films_are_hung(films, kind):
    side = SIDES[kind]
    rows, columns = np.nonzero(pixels_of(films[0][kind][LESION_INDEX[2], : side - 60], MASK_RGB))
    mm_per_pixel = max(n * mm for n, mm in zip(SHAPE[:2], SPACING_MM[:2], strict=True)) / side
    # the patient's right is on the left, anterior on top; the shorter side is centred
    margin = (side - SHAPE[1] * SPACING_MM[1] / mm_per_pixel) / 2
    x = (SHAPE[0] - 0.5 - LESION_INDEX[0]) * SPACING_MM[0] / mm_per_pixel
    y = margin + (SHAPE[1] - 0.5 - LESION_INDEX[1]) * SPACING_MM[1] / mm_per_pixel
    assert (columns.min() + columns.max()) / 2 == pytest.approx(x, abs=3)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(y, abs=3)
    assert columns.max() - columns.min() == pytest.approx(36 / mm_per_pixel, abs=12)


@pytest.mark.parametrize("kind", SIDES)
def test_strip_shows_where_lesions_are_and_where_the_film_is(films, kind):
    frames, lesion = films[0][kind], films[1]
    side = SIDES[kind]
    lane = frames[:, side + STRIP[0] + 3]
    columns = ((np.arange(SHAPE[2]) + 0.5) * side / SHAPE[2]).astype(int)
    touched = lesion.any(axis=(0, 1))
    assert pixels_of(lane[0][columns[1:]], MASK_RGB).tolist() == touched[1:].tolist()
    for k in (0, 7, SHAPE[2] - 1):
        assert abs(int(lane[k].min(axis=-1).argmax()) - columns[k]) <= 3


def test_grey_is_that_of_the_window(scene):
    volume, lesion = scene
    for name, tissue in (("lung", (40 + 1350) / 1500), ("mediastinum", (40 + 160) / 400), ("bone", (40 + 500) / 1800)):
        canvas = Film(volume, lesion, window=WINDOWS[name]).frame(2, 512)
        assert canvas[256, 256] == pytest.approx(tissue * 251, abs=1)
    assert canvas[100, 100] == 0


def test_frames_are_drawn_one_by_one(scene, tmp_path):
    volume, lesion = scene
    Film(volume, lesion).write(tmp_path / "first.mp4")  # libraries are loaded, caches are filled
    seen = []
    tracemalloc.start()
    try:
        Film(volume, lesion).write(tmp_path / "film.mp4", on_progress=lambda done, total: seen.append((done, total)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == [(n, SHAPE[2]) for n in range(1, SHAPE[2] + 1)]
    frame_bytes = 512 * (512 + FOOT)
    assert peak < 15 * frame_bytes


def test_an_empty_mask_makes_a_film_without_marks(scene, tmp_path):
    volume, lesion = scene
    Film(volume, np.zeros_like(lesion), fps=25).write(tmp_path / "film.gif")
    frames = decoded(tmp_path / "film.gif")
    assert len(frames) == SHAPE[2]
    assert not pixels_of(frames, MASK_RGB).any()


def test_masks_of_other_scans_and_other_endings_are_refused(scene, tmp_path):
    volume, lesion = scene
    with pytest.raises(GridMismatchError, match="its grid"):
        Film(volume, lesion[1:])
    with pytest.raises(GridMismatchError, match="its grid"):
        Film(volume, lesion, lesion[:, 1:])
    with pytest.raises(StorageError, match=r"film\.avi"):
        Film(volume, lesion).write(tmp_path / "film.avi")
    with pytest.raises(StorageError, match="can't be written"):
        Film(volume, lesion).write(tmp_path / "nowhere" / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_command_writes_a_film(lungseg, tmp_path):
    scan, mask, reference = (tmp_path / name for name in ("scan.nii.gz", "mask.nii.gz", "reference.nii"))
    lesion = write_chest(scan, "LPS")
    write_nifti(mask, lesion.astype(np.uint8), ras_affine(), "SAR")
    write_nifti(reference, np.roll(lesion, 6, axis=2).astype(np.uint8), ras_affine(), "LPS")
    film = tmp_path / "film.mp4"
    code, _, stderr = lungseg("film", scan, mask, "-o", film, "--reference", reference, "--window", "bone", "--fps", 20)
    assert code == 0, stderr
    frames = decoded(film)
    assert len(frames) == SHAPE[2]
    assert pixels_of(frames[LESION_INDEX[2]], MASK_RGB).sum() > 100
    assert pixels_of(frames[LESION_INDEX[2] + 6], REFERENCE_RGB).sum() > 100
    assert cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FPS) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scan.nii.gz", "none.nii", "-o", "film.mp4"), "There is no file"),
        (("scan.nii.gz", "scan.nii.gz", "-o", "film.png"), "ends in .mp4 or .gif"),
        (("scan.nii.gz", "scan.nii.gz", "-o", "scan.nii.gz"), "is named twice"),
        (("scan.nii.gz", "other.nii.gz", "-o", "film.gif"), "Use the mask that was drawn on this very scan"),
    ],
)
def test_command_refuses_what_makes_no_film(lungseg, tmp_path, arguments, message):
    write_chest(tmp_path / "scan.nii.gz", "LPS")
    write_nifti(tmp_path / "other.nii.gz", np.zeros((20, 21, 22), np.uint8), ras_affine())
    places = [value if value.startswith("-") else tmp_path / value for value in arguments]
    code, _, stderr = lungseg("film", *places)
    assert code == 2
    assert message in stderr
    assert not (tmp_path / "film.gif").exists()
