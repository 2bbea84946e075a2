"""Scenes: the same plan makes the same pixels, and tumour is where the answer says."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.errors import DataSetError
from lungseg.recipes.scenes.compositing import SampleComposer
from lungseg.recipes.scenes.corpus import read_corpus
from lungseg.recipes.scenes.data_module import SceneBatches, batch_of_samples
from lungseg.recipes.scenes.intensity import apply_intensity, draw_intensity
from lungseg.recipes.scenes.pasting import LesionPaster, PasteDrawer, solid
from lungseg.recipes.scenes.placing import ViewDrawer, ViewRenderer, contrast_uptake
from lungseg.recipes.scenes.plans import (
    CropView,
    IntensityAugmentation,
    NoduleView,
    PastedLesion,
    Patch,
    Placement,
    SamplePlan,
    ScanView,
    SyntheticSample,
)
from lungseg.training.batches import load
from lungseg.training.presets import CompositionConfig
from tests.narrowing import existing
from tests.training_data import TINY, write_data

SIDE = TINY.composition.side_px
WHOLE = (0, SIDE)
PLAIN = IntensityAugmentation(1.0, 0.0, 0.0, 0.0, 0.0, mirror=False, upside_down=False, seed=7)
LUNG_SLICE = 15
MIDDLE = (SIDE / 2, SIDE / 2)
HARD_NEGATIVES = {0: np.array([[17, 22, 33]], dtype=np.int32)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return read_corpus(write_data(tmp_path_factory.mktemp("data")))


@pytest.fixture
def composer(corpus):
    return SampleComposer(corpus, TINY)


def lung_view(composer, row_column=None):
    """A view of slice 15 in which the middle of the left lung is in the middle, or another point is."""
    lung = composer.corpus.scans[0].lung
    left = lung[(lung[:, 0] == LUNG_SLICE) & (lung[:, 2] > 48)]
    row, column = row_column or left.mean(axis=0)[1:].tolist()
    placement = Placement((round(row), round(column)), MIDDLE, 1.0, 0.0)
    return ScanView(scan=0, k=LUNG_SLICE, thickness=1, stride=1, placement=placement)


def paste_on(view, *, enlarge=1.0, tissue=None, negative=None):
    placement = Placement((14.0, 20.0), MIDDLE, enlarge * 0.5, 0.0)
    return PastedLesion(
        nodule=0,
        onto=view,
        z=9.0,
        slice_mm=1.0,
        plane_mm=1.0,
        enlarge=enlarge,
        placement=placement,
        solid_hu=40.0,
        rim_px=0.7,
        tissue=tissue,
        negative=negative,
    )


def scene_of(composer, view, paste=None, intensity=PLAIN):
    return composer.apply(SamplePlan((Patch(WHOLE, WHOLE, view),), paste, intensity))


def test_pose_lays_its_source_point_on_its_target():
    placement = Placement((12.0, 30.0), (5.0, 9.0), 1.7, 33.0)
    np.testing.assert_allclose(placement.matrix @ [30.0, 12.0, 1.0], [9.0, 5.0])
    stretched = replace(placement, degrees=0.0, aspect=1.2)
    np.testing.assert_allclose(stretched.matrix @ [31.0, 13.0, 1.0], [9.0 + 1.2 * 1.7, 5.0 + 1.7])


def test_same_seed_draws_the_same_plans_and_pixels(composer):
    plans = [[composer.draw(rng) for _ in range(40)] for rng in (np.random.default_rng(3), np.random.default_rng(3))]
    assert plans[0] == plans[1]
    for plan in plans[0]:
        first, second = composer.apply(plan), composer.apply(plan)
        np.testing.assert_array_equal(first.planes, second.planes)
        np.testing.assert_array_equal(first.tumour, second.tumour)


def test_every_scene_is_complete(composer):
    rng = np.random.default_rng(0)
    scenes = [composer.apply(composer.draw(rng)) for _ in range(200)]
    assert all(scene.planes.shape == (3, SIDE, SIDE) and np.isfinite(scene.planes).all() for scene in scenes)
    assert all(set(np.unique(scene.tumour)) | set(np.unique(scene.weight)) <= {0, 1} for scene in scenes)
    with_tumour = np.mean([scene.tumour.any() for scene in scenes])
    assert 0.2 < with_tumour < 0.95


def test_part_of_a_scan_shows_the_marked_lesion_in_its_place(composer):
    scan = composer.corpus.scans[0]
    k, row, column = scan.lesion[len(scan.lesion) // 2].tolist()
    scene = scene_of(composer, ScanView(0, k, 1, 1, Placement((row, column), MIDDLE, 1.0, 0.0)))
    window = (slice(row - SIDE // 2, row + SIDE // 2), slice(column - SIDE // 2, column + SIDE // 2))
    np.testing.assert_array_equal(scene.planes[1], scan.hu[k][window])
    np.testing.assert_array_equal(scene.tumour, scan.tumour[k][window])
    assert scene.weight.all()


def test_neighbouring_slices_are_the_outer_planes(composer):
    scan = composer.corpus.scans[0]
    scene = scene_of(composer, lung_view(composer, (40, 48)))
    for plane, k in zip(scene.planes, (14, 15, 16), strict=True):
        np.testing.assert_array_equal(plane, scan.hu[k][24:56, 32:64])


def test_planes_of_thin_slices_lie_apart_as_in_inference(composer):
    scan = composer.corpus.scans[0]
    view = replace(lung_view(composer, (40, 48)), stride=3)
    for plane, k in zip(scene_of(composer, view).planes, (12, 15, 18), strict=True):
        np.testing.assert_array_equal(plane, scan.hu[k][24:56, 32:64])


def test_tile_of_a_nodule_in_3d_shows_its_slab_and_its_mask(composer):
    nodule = composer.corpus.nodules[0]
    scene = scene_of(
        composer, NoduleView(0, z=9.0, slice_mm=2.0, plane_mm=3.0, placement=Placement((14.0, 20.0), MIDDLE, 1.0, 0.0))
    )
    assert scene.tumour.sum() == nodule.mask[9].sum()
    assert scene.planes[1][scene.tumour == 1].mean() == pytest.approx(56)
    assert scene.planes[2][scene.tumour == 1].mean() == pytest.approx((56 - 844) / 2)  # one slice of the slab holds it
    beyond = scene_of(composer, NoduleView(0, 17.0, 2.0, 3.0, Placement((14.0, 20.0), MIDDLE, 1.0, 0.0)))
    assert not beyond.tumour.any()
    assert beyond.weight[3:31].all()
    assert not beyond.weight[0].any()


def test_scans_that_are_not_shown_are_in_no_scene(corpus):
    composer = SampleComposer(corpus, TINY, scans=[1], hard_negatives=HARD_NEGATIVES)
    rng = np.random.default_rng(0)
    views = [tile.view for _ in range(100) for tile in composer.draw(rng).tiles]
    assert {view.scan for view in views if isinstance(view, ScanView)} == {1}
    assert {type(view) for view in views} == {ScanView, CropView, NoduleView}


def test_thick_slices_are_averaged_in_pairs(composer):
    scan = composer.corpus.scans[0]
    view = ScanView(0, LUNG_SLICE, 2, 2, Placement((40, 48), MIDDLE, 1.0, 0.0))
    expected = (scan.hu[LUNG_SLICE].astype(np.float32) + scan.hu[LUNG_SLICE + 1])[24:56, 32:64] / 2
    np.testing.assert_allclose(scene_of(composer, view).planes[1], expected)


def test_unlabelled_slices_ask_for_no_answer(composer):
    view = ScanView(2, 25, 1, 1, Placement((40, 48), MIDDLE, 1.0, 0.0))
    assert not scene_of(composer, view).weight.any()


def test_pixels_of_one_reader_and_beyond_the_crop_ask_for_no_answer(composer):
    scene = scene_of(composer, CropView(0, 2, 1, Placement((31.0, 31.0), (10.0, 16.0), 1.0, 0.0)))
    readers = composer.corpus.crops[0].readers[2]
    assert scene.tumour.sum() == (readers >= 2).sum()
    assert not (scene.tumour.astype(bool) & (scene.weight == 0)).any()
    far = scene_of(composer, CropView(0, 2, 1, Placement((31.0, 31.0), (-20.0, 16.0), 1.0, 0.0)))
    assert far.weight[: SIDE // 4].all()
    assert not far.weight[SIDE // 2 :].any()


def test_pasted_nodule_brings_its_density_and_its_answer(composer):
    view = lung_view(composer)
    scene = scene_of(composer, view, paste_on(view))
    bare = scene_of(composer, view)
    assert 10 < scene.tumour.sum() < 40
    assert scene.planes[1][scene.tumour == 1].mean() > bare.planes[1][scene.tumour == 1].mean() + 500
    far = np.ones((SIDE, SIDE), bool)
    far[6:-6, 6:-6] = False
    np.testing.assert_array_equal(scene.planes[:, far], bare.planes[:, far])


def test_enlarged_nodule_becomes_a_solid_tumour_of_that_size(composer):
    view = lung_view(composer)
    small, large = (scene_of(composer, view, paste_on(view, enlarge=factor)) for factor in (1.0, 3.0))
    ratio = large.tumour.sum() / small.tumour.sum()
    assert ratio == pytest.approx(9, rel=0.4)  # the small one has some 25 pixels
    assert np.median(large.planes[1][large.tumour == 1]) == pytest.approx(40, abs=15)


def test_enlarged_nodule_has_the_grain_of_soft_tissue_at_its_own_density(composer):
    view = lung_view(composer)
    scan = composer.corpus.scans[0]
    k, row, column = scan.tissue[0].tolist()
    assert (scan.tumour[k, row, column], scan.hu[k, row, column] > -30) == (0, True)
    scan.hu[k, row - 2 : row + 3 : 2] += 20
    tissue = replace(view, k=k, placement=Placement((row, column), MIDDLE, 1.0, 0.0))
    scene = scene_of(composer, view, paste_on(view, enlarge=3.0, tissue=tissue))
    scan.hu[k, row - 2 : row + 3 : 2] -= 20
    middle = SIDE // 2
    assert scene.tumour[middle - 2 : middle + 3, middle].all()
    across = scene.planes[1][middle - 2 : middle + 3, middle]
    np.testing.assert_allclose(np.diff(across), [-20, 20, -20, 20], atol=1)
    assert np.median(scene.planes[1][scene.tumour == 1]) == pytest.approx(40, abs=10)


def test_enlarged_pastes_lie_on_tissue_of_their_own_scan(composer):
    rng = np.random.default_rng(0)
    pastes = [paste for paste in (composer.draw(rng).paste for _ in range(200)) if paste and paste.enlarge >= 1.5]
    assert pastes
    assert all(paste.tissue is not None and paste.tissue.scan == paste.onto.scan for paste in pastes)


def test_tumour_is_pasted_only_where_a_lung_tumour_can_lie(composer):
    scan = composer.corpus.scans[0]
    k, row, column = scan.wall[scan.wall[:, 0] == LUNG_SLICE][0].tolist()
    view = ScanView(0, k, 1, 1, Placement((row, column), MIDDLE, 1.0, 0.0))
    scene = scene_of(composer, view, paste_on(view, enlarge=3.0))
    room = np.pad(scan.room[k], SIDE)[
        row + SIDE // 2 : row + 3 * SIDE // 2, column + SIDE // 2 : column + 3 * SIDE // 2
    ]
    assert scene.tumour.any()
    assert not scene.tumour[room == 0].any()


def test_negative_changes_pixels_but_is_no_tumour(composer):
    view = lung_view(composer)
    heart = ScanView(0, LUNG_SLICE, 1, 1, Placement((40, 48), MIDDLE, 1.0, 0.0))
    scene = scene_of(composer, view, paste_on(view, enlarge=3.0, negative=heart))
    assert not scene.tumour.any()
    assert (scene.planes != scene_of(composer, view).planes).any()


def test_seams_of_a_mosaic_ask_for_no_answer(composer):
    view = CropView(0, 2, 1, Placement((31.0, 31.0), (8.0, 8.0), 2.0, 0.0))
    tiles = tuple(Patch(rows, columns, view) for rows in ((0, 20), (20, SIDE)) for columns in ((0, 14), (14, SIDE)))
    scene = composer.apply(SamplePlan(tiles, None, PLAIN))
    assert not scene.weight[18:22].any()
    assert not scene.weight[:, 12:16].any()
    assert scene.weight[5:10, 5:10].all()
    assert [scene.tile[at] for at in ((0, 0), (0, 31), (31, 0), (31, 31))] == [0, 1, 2, 3]


def test_intensity_mirrors_planes_and_answer_alike(composer):
    view = CropView(0, 2, 1, Placement((31.0, 31.0), (10.0, 9.0), 1.0, 0.0))
    plain, mirrored = scene_of(composer, view), scene_of(composer, view, intensity=replace(PLAIN, mirror=True))
    np.testing.assert_array_equal(mirrored.tumour, plain.tumour[:, ::-1])
    np.testing.assert_array_equal(mirrored.planes, plain.planes[:, :, ::-1])


def test_gain_keeps_air_and_offset_moves_all(composer):
    view = lung_view(composer, (1, 1))
    assert scene_of(composer, view, intensity=replace(PLAIN, gain=1.1)).planes.min() == pytest.approx(-1000)
    assert scene_of(composer, view, intensity=replace(PLAIN, offset_hu=12.0)).planes.min() == pytest.approx(-988)


def test_hard_negatives_are_shown(corpus):
    only = CompositionConfig(mosaic=0.0, lesion=0.0, hard_negatives=1.0, wall=0.0, chest=0.0)
    composer = SampleComposer(corpus, replace(TINY, composition=only), hard_negatives=HARD_NEGATIVES)
    view = composer.draw(np.random.default_rng(0)).tiles[0].view
    assert isinstance(view, ScanView)
    assert (view.scan, view.k, view.placement.source) == (0, 17, (22, 33))


def test_shares_above_one_are_refused():
    with pytest.raises(DataSetError, match=r"add up to 1\.40"):
        CompositionConfig(lesion=0.9, hard_negatives=0.0, wall=0.5, chest=0.0)


def test_batches_are_the_same_whichever_process_makes_them(composer):
    batches = SceneBatches(composer, TINY, seed=5, epoch=2)
    here, there = list(load(batches, 0)), list(load(batches, 1))
    assert len(here) == len(there) == TINY.optimisation.steps
    for first, second in zip(here, there, strict=True):
        assert first.planes.equal(second.planes)
        assert first.tumour.equal(second.tumour)
        assert existing(first.weight).equal(existing(second.weight))
    assert not here[0].planes.equal(here[1].planes)
    assert not here[0].planes.equal(SceneBatches(composer, TINY, seed=5, epoch=3)[0].planes)


def test_batch_holds_scaled_hu(composer):
    scene = scene_of(composer, lung_view(composer))
    batch = batch_of_samples([scene, scene], TINY.preprocessing)
    assert batch.planes.shape == (2, 3, SIDE, SIDE)
    assert batch.tumour.shape == existing(batch.weight).shape == (2, 1, SIDE, SIDE)
    assert float(batch.planes.min()) == pytest.approx(scene.planes.min() / 500)


def test_views_are_drawn_from_the_ranges_of_the_composition(corpus):
    rng, drawer = np.random.default_rng(1), ViewDrawer(corpus, TINY, [0, 1])
    mix, place = TINY.composition, ((20, 24), 1.5)
    for _ in range(100):
        lung, crop, nodule = drawer.lung(rng, *place), drawer.crop(rng, *place), drawer.nodule(rng, *place)
        assert lung.scan in {0, 1}
        assert tuple(lung.placement.source) in {tuple(point[1:]) for point in corpus.scans[lung.scan].lung.tolist()}
        assert 0 <= crop.k < len(corpus.crops[crop.crop].hu)
        assert mix.slice_mm[0] <= nodule.slice_mm <= mix.slice_mm[1]
        for view in (lung, crop, nodule):
            assert abs(view.placement.degrees) <= mix.rotation_degrees
            assert mix.aspect[0] <= view.placement.aspect <= mix.aspect[1]


def test_renderer_gives_every_view_the_shape_of_its_tile(corpus):
    rng, drawer = np.random.default_rng(2), ViewDrawer(corpus, TINY, [0])
    renderer = ViewRenderer(corpus, channels=3)
    for draw in (drawer.lung, drawer.crop, drawer.nodule):
        planes, tumour, weight = renderer.render(draw(rng, (20, 27), 1.5), (20, 27))
        assert (planes.shape, tumour.shape, weight.shape) == ((3, 20, 27), (20, 27), (20, 27))


def test_contrast_medium_is_taken_up_by_soft_tissue_in_blood_alone():
    planes = np.array([[[-900.0, -100.0, 20.0, 60.0, 400.0]]], dtype=np.float32)
    blood = np.array([[1, 1, 1, 1, 1]], dtype=np.uint8)
    assert contrast_uptake(planes, [blood]).tolist() == [[[0.0, 0.0, 0.5, 1.0, 0.0]]]
    assert not contrast_uptake(planes, [1 - blood]).any()


def test_pastes_are_no_smaller_than_their_nodule_and_no_larger_than_allowed(corpus, composer):
    rng = np.random.default_rng(3)
    drawer = PasteDrawer(corpus, TINY.composition, ViewDrawer(corpus, TINY, [0]))
    pastes = [drawer.draw(rng, lung_view(composer), 1.5) for _ in range(200)]
    assert all(1 <= paste.enlarge <= TINY.composition.enlarge for paste in pastes)
    assert all(paste.placement.target == MIDDLE for paste in pastes)
    negatives = np.mean([paste.negative is not None for paste in pastes])
    assert negatives == pytest.approx(TINY.composition.negative_paste, abs=0.1)


def test_nothing_is_pasted_where_there_is_no_lung_to_replace(corpus, composer):
    view = lung_view(composer)
    planes = np.full((3, SIDE, SIDE), 40.0, dtype=np.float32)
    tumour = np.zeros((SIDE, SIDE), dtype=np.uint8)
    paster = LesionPaster(corpus, ViewRenderer(corpus, channels=3))
    paster.paste(paste_on(view), planes, tumour, np.random.default_rng(0))
    assert (planes == 40.0).all()
    assert not tumour.any()
    planes[:] = -850.0
    paster.paste(paste_on(view), planes, tumour, np.random.default_rng(0))
    assert tumour.any()


def test_solid_tissue_keeps_its_grain_and_loses_what_is_no_tissue():
    hu = np.full((9, 9), 50.0, dtype=np.float32)
    hu[4, 4], hu[0] = 60.0, -800.0
    shifted = solid(hu, 20.0, np.random.default_rng(0))
    assert (shifted[4, 4], shifted[4, 5]) == (30.0, 20.0)
    assert abs(shifted[0] - 20.0).max() < 150


def test_intensities_are_drawn_from_the_ranges_of_the_composition():
    rng, mix = np.random.default_rng(4), TINY.composition
    drawn = [draw_intensity(rng, mix) for _ in range(300)]
    assert all(mix.gain[0] <= each.gain <= mix.gain[1] for each in drawn)
    assert all(mix.noise_hu[0] <= each.noise_hu <= mix.noise_hu[1] for each in drawn)
    assert np.mean([each.blur_px > 0 for each in drawn]) == pytest.approx(mix.blur, abs=0.1)
    assert {each.mirror for each in drawn} == {each.upside_down for each in drawn} == {True, False}


def test_intensity_turns_planes_upside_down_and_adds_noise():
    planes = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    marks = np.zeros((4, 5), dtype=np.uint8)
    sample = SyntheticSample(planes, marks, marks, marks)
    turned = apply_intensity(sample, replace(PLAIN, upside_down=True))
    np.testing.assert_allclose(turned.planes, planes[::-1], atol=1e-3)
    noisy = apply_intensity(sample, replace(PLAIN, noise_hu=30.0)).planes - planes
    assert 15 < noisy.std() < 45
