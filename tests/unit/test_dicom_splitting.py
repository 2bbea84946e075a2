"""Phases, passes and reconstructions in one series: split where that cures its geometry, and only there."""

import numpy as np
import pytest

from lungseg.scans.dicom.series import offers_of
from lungseg.scans.dicom.stacks import stack_of
from tests.dicom_phantoms import (
    POSITION,
    STEP_MM,
    small_volume,
    uid_of,
    write_enhanced,
    write_phases,
    write_series,
)
from tests.dicom_series import only_series, series_of


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("AcquisitionNumber", "acquisition 2"),
        ("TemporalPositionIdentifier", "temporal position 2"),
        ("NominalPercentageOfCardiacPhase", "2 % of the heart's cycle"),
    ],
)
def test_phases_of_one_series_are_offered_one_by_one(tmp_path, tag, label):
    """Situation 6."""
    files = write_phases(tmp_path, 3, tag)
    parts = series_of(files)
    assert [len(part.instances) for part in parts] == [24, 24, 24]
    assert [part.refusal for part in parts] == [""] * 3
    assert parts[1].note == f"Phase 2 of 3 in its series ({label})."
    assert [(finding.code, finding.text) for finding in parts[1].findings] == [("dicom.part", parts[1].note)]
    for number, part in enumerate(parts):
        assert {one.path.parent.name for one in part.instances} == {f"phase{number}"}


@pytest.mark.parametrize(
    ("tag", "values", "labels"),
    [
        ("ContentTime", ("101501", "101509"), ("content time 101501", "content time 101509")),
        ("ConvolutionKernel", ("B70f", "B30f"), ("kernel B30f", "kernel B70f")),
        ("SliceThickness", (5, 2.5), ("slices of 2.5 mm", "slices of 5 mm")),
        ("KVP", ("140", "80"), ("80 kV", "140 kV")),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "AXIAL", "N_140"], ["ORIGINAL", "PRIMARY", "AXIAL", "M_80"]),
            ("AXIAL\\M_80", "AXIAL\\N_140"),
        ),
    ],
)
def test_stacks_of_one_series_that_other_tags_tell_apart(tmp_path, tag, values, labels):
    files = []
    for number, value in enumerate(values):

        def set_value(dataset, k, *, value=value, number=number):
            dataset.SOPInstanceUID = uid_of(str(number), str(k))
            setattr(dataset, tag, value)

        files += write_series(tmp_path / str(number), small_volume() + np.int16(number), change=set_value)
    notes = [part.note for part in series_of(files)]
    word = {"ContentTime": "Phase", "KVP": "Energy", "ImageType": "Image type"}.get(tag, "Reconstruction")
    assert notes == [f"{word} {number} of 2 in its series ({label})." for number, label in enumerate(labels, start=1)]


def test_phases_in_two_kernels_are_told_apart_by_both(tmp_path):
    files = []
    for phase in (1, 2):
        for number, kernel in enumerate(("B30f", "B70f")):

            def set_both(dataset, k, *, phase=phase, kernel=kernel):
                dataset.SOPInstanceUID = uid_of(str(phase), kernel, str(k))
                dataset.TemporalPositionIdentifier, dataset.ConvolutionKernel = phase, kernel

            volume = small_volume() + np.int16(phase + 2 * number)
            files += write_series(tmp_path / f"{phase}{kernel}", volume, change=set_both)
    notes = [part.note for part in series_of(files)]
    assert len(notes) == 4
    assert notes[3] == "Phase 4 of 4 in its series (temporal position 2 and kernel B70f)."


def test_phases_that_only_instance_numbers_tell_apart_say_so(tmp_path):
    files = []
    for phase in (0, 1):

        def set_number(dataset, k, *, phase=phase):
            dataset.SOPInstanceUID = uid_of(str(phase), str(k))
            dataset.InstanceNumber, dataset.ContentTime = 24 * phase + k + 1, "101500"

        files += write_series(tmp_path / str(phase), small_volume() + np.int16(phase), change=set_number)
    parts = series_of(files)
    assert [part.note for part in parts] == [
        f"Phase {n} of 2 in its series (told apart by the numbers of the slices alone, rank {n})." for n in (1, 2)
    ]
    assert {one.path.parent.name for one in parts[1].instances} == {"1"}


def test_a_tag_that_counts_pictures_tells_no_stacks_apart(tmp_path):
    """Each trigger time has a few slices, at even distances by chance."""
    files = []
    for phase in (0, 1):

        def set_time(dataset, k, *, phase=phase):
            dataset.SOPInstanceUID = uid_of(str(phase), str(k))
            dataset.TriggerTime, dataset.InstanceNumber = str(400 * phase + k % 8), 24 * phase + k + 1
            dataset.ContentTime = "101500"

        files += write_series(tmp_path / str(phase), small_volume() + np.int16(phase), change=set_time)
    parts = series_of(files)
    assert [len(part.instances) for part in parts] == [24, 24]
    assert [{one.path.parent.name for one in part.instances} for part in parts] == [{"0"}, {"1"}]


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "TemporalPositionIdentifier", "ConvolutionKernel"])
def test_stacks_whose_slices_take_turns_are_not_merged(tmp_path, tag):
    """Half a step apart they look like one regular stack of twice as many slices."""
    files = []
    for number in (1, 2):

        def set_value(dataset, k, *, number=number):
            dataset.SOPInstanceUID = uid_of("turn", str(number), str(k))
            setattr(dataset, tag, f"B{number}0f" if tag == "ConvolutionKernel" else number)

        position = (*POSITION[:2], POSITION[2] + STEP_MM / 2 * number)
        volume = small_volume() + np.int16(number)
        files += write_series(tmp_path / str(number), volume, position=position, change=set_value)
    parts = series_of(files)
    assert [{one.path.parent.name for one in part.instances} for part in parts] == [{"1"}, {"2"}]
    assert [stack_of(part.instances).grid.shape[2] for part in parts] == [24, 24]


def test_two_passes_that_overlap_are_not_merged(tmp_path):
    """Situation 7: the second pass is shifted by 31 mm, so that slices of both alternate."""
    first = write_series(tmp_path / "first")

    def set_pass(dataset, k):
        dataset.SOPInstanceUID, dataset.AcquisitionNumber = uid_of("pass", str(k)), 2

    position = (*POSITION[:2], POSITION[2] + 31)
    second = write_series(tmp_path / "second", small_volume(20), position=position, change=set_pass)
    parts = series_of([*first, *second])
    assert [len(part.instances) for part in parts] == [24, 20]
    assert parts[1].note == "Pass 2 of 2 in its series (acquisition 2)."
    best = offers_of(parts)[0]
    assert (best.slices, best.is_preferred) == (24, True)


def test_passes_far_from_each_other_are_two(tmp_path):
    first = write_series(tmp_path / "first")

    def set_pass(dataset, k):
        dataset.SOPInstanceUID, dataset.AcquisitionNumber = uid_of("pass", str(k)), 2

    second = write_series(tmp_path / "second", position=(*POSITION[:2], POSITION[2] + 200), change=set_pass)
    assert [len(part.instances) for part in series_of([*first, *second])] == [24, 24]


def test_acquisitions_of_one_volume_are_not_split(tmp_path):
    """Situation 8, even where a slice is missing."""

    def count(dataset, k):
        dataset.AcquisitionNumber = k // 10
        return k != 13

    series = only_series(write_series(tmp_path, change=count))
    assert (len(series.instances), series.note) == (23, "")
    assert [finding.code for finding in stack_of(series.instances).findings] == ["dicom.slice_missing"]


def test_slices_that_watch_for_contrast_are_split_off(tmp_path):
    def watch(dataset, k):
        dataset.SOPInstanceUID, dataset.AcquisitionNumber = uid_of("watch", str(k)), 2
        dataset.ImagePositionPatient = [*POSITION[:2], POSITION[2] + 10 * STEP_MM]

    files = [*write_series(tmp_path / "a"), *write_series(tmp_path / "b", small_volume(5) + np.int16(2), change=watch)]
    whole, watching = series_of(files)
    assert (len(whole.instances), whole.refusal) == (24, "")
    assert (len(watching.instances), "More than one slice" in watching.refusal) == (5, True)


def test_phases_within_a_multi_frame_file(tmp_path):
    def interleave(dataset, _):
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            groups.FrameContentSequence[0].TemporalPositionIndex = number % 2 + 1
            height = POSITION[2] + STEP_MM * (number // 2)
            groups.PlanePositionSequence[0].ImagePositionPatient = [*POSITION[:2], height]

    first, second = series_of([write_enhanced(tmp_path / "enhanced", change=interleave)])
    assert [one.frame for one in second.instances] == list(range(1, 24, 2))
    assert (len(first.instances), first.note) == (12, "Phase 1 of 2 in its series (temporal position 1).")
