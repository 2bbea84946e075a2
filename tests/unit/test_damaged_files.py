"""Every file that the package reads back, damaged in every plain way: a reason with its code, never a traceback."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from lungseg.cli.output import check_outputs, write_text
from lungseg.config import CHECKOUT
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import SliceStore, prepare
from lungseg.errors import CheckpointError, DataSetError, DiskFullError, LungSegError, StorageError
from lungseg.figures.video import Film
from lungseg.scans import overlay
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume
from lungseg.segmentation.card import find_weights, read_card, write_checkpoint
from lungseg.segmentation.checkpoint import load_checkpoint, save_checkpoint
from lungseg.segmentation.probability_io import write_map
from lungseg.services import promotion, runs, training
from lungseg.services.checkpoints import name_of, read_checkpoint
from lungseg.services.run_folder import LOG
from lungseg.training.config import TrainingConfig
from lungseg.training.state import RunDirectory, read_config
from tests.cards import as_older, damage_card, save_scenes
from tests.data_sets import write_json, write_pair
from tests.fuzz.readers import Workshop
from tests.phantoms import SHAPE, chest, graded_map, ras_affine

JSON = {
    "not UTF-8": lambda raw: raw[:20] + b"\xff" + raw[20:],
    "nested deeply": lambda raw: b"[" * 100_000,
    "nested deeply inside": lambda raw: b'{"x": ' + b"[" * 900 + b"]" * 900 + b", " + raw.lstrip()[1:],
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "a list": lambda raw: b"[]",
    "a number": lambda raw: b"7",
    "null": lambda raw: b"null",
    "a number of 5000 digits": lambda raw: b'{"x": ' + b"9" * 5000 + b", " + raw.lstrip()[1:],
    "a number beyond all": lambda raw: b"1e999",
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "larger than any": lambda raw: raw + b" " * 30_000_000,
}
BYTES = {
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "other bytes": lambda raw: b"\xff" * 1000,
    "its first half": lambda raw: b"\0" * 200 + raw[200:],
}
TABLES = {
    "not UTF-8": lambda raw: raw[:20] + b"\xff" + raw[20:],
    "other columns": lambda raw: b"a,b\n1,2\n",
    "a field too long": lambda raw: raw + b"x" * 200_000 + b",y\n",
    "a row too short": lambda raw: raw + b"x\n",
}
REFUSED = {
    "card": ("checkpoint.unusable", JSON),
    "card inside weights": ("checkpoint.unusable", JSON),
    "weights, right sha256": ("checkpoint.unusable", BYTES),
    "dataset.json": ("data.unusable", JSON),
    "patients.csv": ("data.unusable", TABLES),
    "store, index": ("data.unusable", JSON),
    "store, case": ("data.unusable", JSON),
    "store, array": ("data.unusable", BYTES),
    "split": ("data.unusable", JSON),
    "index of nodules": ("data.unusable", TABLES),
    "index of crops": ("data.unusable", TABLES),
    "config": ("data.unusable", JSON),
    "preset": ("data.unusable", BYTES),
    "manifest of a corpus": ("data.unusable", BYTES),
    "state": ("training.failed", BYTES),
    "probability map": ("storage.failed", BYTES),
    "manifest": ("storage.failed", JSON),
    "identity": ("storage.failed", JSON),
}
PASSED_OVER = {"derived mask, facts": JSON, "log": BYTES, "git HEAD": BYTES}


def code_of(read):
    """Return the code of the error that a reader raises; None where it takes what it gets."""
    try:
        read()
    except LungSegError as error:
        return error.code
    return None


def pairs(table):
    return [(kind, damage) for kind, damages in table.items() for damage in damages]


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    yield {target.name: target for target in workshop.targets()}
    workshop.close()


@pytest.fixture
def spoil(targets):
    """Damage the one good file of a kind for the length of a test; returns how to read it."""
    spoiled = []

    def damaged(kind, content):
        target = targets[kind]
        spoiled.append(target)
        target.path.write_bytes(content(target.seeds[0]))
        return lambda: target.read(target.path)

    yield damaged
    for target in spoiled:
        target.path.write_bytes(target.seeds[0])


def test_every_kind_is_here(targets):
    elsewhere = {"scan", "scan, uploaded", "mask", "columns of a run"}
    elsewhere |= {
        "DICOM slice",
        "DICOM multi-frame",
        "NRRD",
        "MetaImage",
        "header of a pair",
        "zip",
        "tar",
        "DICOM series",
        "hostile archive",
    }
    assert set(targets) == {*REFUSED, *PASSED_OVER, *elsewhere}


@pytest.mark.parametrize(("kind", "damage"), pairs({kind: damages for kind, (_, damages) in REFUSED.items()}))
def test_damage_is_refused_with_the_code_of_its_kind(spoil, kind, damage):
    code, damages = REFUSED[kind]
    with pytest.raises(LungSegError) as caught:
        spoil(kind, damages[damage])()
    assert caught.value.code == code
    assert caught.value.remedy


@pytest.mark.parametrize(("kind", "damage"), pairs(PASSED_OVER))
def test_damage_of_what_can_be_had_again_is_passed_over(spoil, kind, damage):
    spoil(kind, PASSED_OVER[kind][damage])()


OF_LABELS = "data.tumour_class"
"""Labels that can be read may still name no tumour."""


@pytest.mark.parametrize("kind", [kind for kind, (_, damages) in REFUSED.items() if damages is JSON])
@pytest.mark.parametrize("value", [None, 7, -1, 10**30, float("inf"), "x" * 300, "a\0b", [], [[]], {}, {"x": 1}])
def test_values_of_another_kind_are_refused_or_of_no_account(spoil, targets, kind, value):
    code = REFUSED[kind][0]
    for key in json.loads(targets[kind].seeds[0]):
        read = spoil(kind, lambda raw, key=key: json.dumps(json.loads(raw) | {key: value}).encode())
        assert code_of(read) in {code, OF_LABELS if key == "labels" else code, None}, key


@pytest.mark.parametrize(
    "columns",
    [
        {"progress": {"stage": "x", "pace": 1}}, {"progress": {"done": "many"}}, {"failure": {"code": "x"}},
        {"failure": [1]}, {"warnings": [1]}, {"tags": {"a": 1}}, {"configuration": []}, {"configuration": None},
    ],
)  # fmt: skip
def test_columns_of_a_run(spoil, columns):
    read = spoil("columns of a run", lambda raw: json.dumps(json.loads(raw) | columns).encode())
    if columns == {"progress": {"stage": "x", "pace": 1}}:
        read()
        return
    with pytest.raises(StorageError, match=r"record of the run .* is damaged"):
        read()


@pytest.fixture
def installed(settings, tmp_path):
    save_scenes(tmp_path / "models", "good")
    save_scenes(tmp_path / "models", "bad")
    return replace(settings, models=tmp_path / "models", checkpoint="good")


def test_one_damaged_card_hides_itself_alone(installed):
    card = installed.models / "bad.json"
    as_older(card.with_suffix(".safetensors"))
    card.write_bytes(card.read_bytes()[:50] + b"\xff" + card.read_bytes()[50:])
    sha256 = read_checkpoint(installed, "good").card.sha256
    assert promotion.promoted_names(installed) == {sha256: "good"}
    assert name_of(installed, sha256) == "good"
    with pytest.raises(CheckpointError, match=r"bad\.json is damaged"):
        read_checkpoint(installed, "bad")


@pytest.mark.parametrize(
    "damage",
    [
        {"training": {"seconds": "an hour"}}, {"training": {"held_out_cases": 7, "tested_patients": [[1]]}},
        {"scores": {"cases": 7}}, {"scores": {"cases": [7], "summary": []}}, {"data": [{}]},
        {"scores": {"cases": [{"case": "x", "dice": "good"}]}},
    ],
)  # fmt: skip
def test_parts_that_only_pages_show_stop_no_segmentation(installed, damage):
    weights = installed.models / "bad.safetensors"
    damage_card(weights, **damage)
    _, card = load_checkpoint(weights, to_segment=True)
    assert card.threshold == 0.6
    for read in (read_card, load_checkpoint, lambda _: read_checkpoint(installed, "bad")):
        with pytest.raises(CheckpointError, match=r"bad\.safetensors is damaged .* Put the card"):
            read(weights)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("network", {"width": 10**6, "depth": 2}), ("network", {"width": 4, "depth": 40}),
        ("network", {"width": 64, "depth": 4, "channels": 1}), ("min_lesion_ml", float("nan")), ("threshold", "0.5x"),
        ("preprocessing", {"size": 10**9}), ("preprocessing", {"size": 255}),
        ("preprocessing", {"neighbour_mm": 1e300}),
        ("operating_points", [{"threshold": 0.5}]), ("calibration", {"intercept": 0, "evidence_weight": float("inf")}),
    ],
)  # fmt: skip
def test_numbers_of_a_card_that_would_break_a_run_are_refused(installed, part, value):
    weights = installed.models / "bad.safetensors"
    damage_card(weights, **{part: value})
    with pytest.raises(CheckpointError):
        load_checkpoint(weights, to_segment=True)


def test_weights_that_are_gone_are_said_so(installed):
    (installed.models / "bad.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"There is no file bad\.safetensors"):
        load_checkpoint(installed.models / "bad.safetensors")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "lung_1/" + "y" * 256 + "/z.nii.gz"])
def test_names_that_no_file_has_are_missing_files(tmp_path, name):
    write_pair(tmp_path, "lung_1", spot=(20, 16, 8), shape=(40, 34, 18))
    listed = [{"image": f"imagesTr/{each}", "label": f"labelsTr/{each}"} for each in ("lung_1.nii.gz", name)]
    write_json(tmp_path, training=listed, test=[name])
    data_set = open_data_set(tmp_path)
    assert [pair.case for pair in data_set.labelled] == ["lung_1"]
    expected = "layout.entry" if "\0" in name else "layout.missing_file"
    assert {finding.code for finding in data_set.findings} == {expected}
    assert all(len(finding.found) < 400 for finding in data_set.findings)


@pytest.mark.parametrize("name", ["", ".", "./", 7, None, ["x", "y"], "../x", "/x"])
def test_entries_that_name_no_file_of_the_folder_are_refused(tmp_path, name):
    write_pair(tmp_path / "set", "lung_1", spot=(20, 16, 8), shape=(40, 34, 18))
    (tmp_path / "set.nii").write_bytes(b"outside")
    write_json(tmp_path / "set", training=[{"image": name, "label": name}])
    with pytest.raises(DataSetError, match="has the entry"):
        open_data_set(tmp_path / "set")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/x", "a\0b"])
def test_folders_that_can_not_be_are_no_folders(name, tmp_path):
    with pytest.raises(DataSetError, match="There is no folder"):
        open_data_set(tmp_path.parent / name if name[0] != "~" else type(tmp_path)(name))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        find_weights(name, tmp_path)
    with pytest.raises(DataSetError, match="holds 0 training runs"):
        read_config(tmp_path / name)
    with pytest.raises(StorageError, match=r"no folder|too long"):
        check_outputs([tmp_path / name / "x.json"])


def test_names_that_are_not_utf8_survive_a_store(tmp_path):
    folder = tmp_path / "set"
    write_pair(folder, "lung_1", spot=(20, 16, 8), shape=(40, 34, 18))
    (folder / "imagesTr" / os.fsdecode(b"notes\xfc.txt")).write_text("litter")
    store = prepare(open_data_set(folder), tmp_path / "store", workers=1)
    assert store.data_set.ignored == (os.fsdecode(b"imagesTr/notes\xfc.txt"),)


def _without_stamps(name, raw):
    """Leave out when the arrays were written."""
    return json.loads(raw) | {"arrays": None} if name.endswith(".json") else raw


@pytest.mark.parametrize("name", ["lung_1.case.json", "lung_1.hu.npy", "lung_1.tumour.npy"])
@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", None])
def test_store_is_repaired_by_preparing_it_again(tmp_path, name, damage):
    folder, store = tmp_path / "set", tmp_path / "store"
    write_pair(folder, "lung_1", spot=(20, 16, 8), shape=(40, 34, 18))
    made = prepare(open_data_set(folder), store, workers=1).cases[0]
    before = np.array(made.hu), np.array(made.tumour)
    whole = (store / name).read_bytes()
    (store / name).unlink() if damage is None else (store / name).write_bytes(damage(whole))
    again = prepare(open_data_set(folder), store, workers=1).cases[0]
    assert _without_stamps(name, (store / name).read_bytes()) == _without_stamps(name, whole)
    np.testing.assert_array_equal(again.hu, before[0])
    np.testing.assert_array_equal(again.tumour, before[1])


def test_facts_of_another_case_are_none_of_this_one(tmp_path):
    folder, store = tmp_path / "set", tmp_path / "store"
    write_pair(folder, "lung_1", spot=(20, 16, 8), shape=(40, 34, 18))
    prepare(open_data_set(folder), store, workers=1)
    path = store / "lung_1.case.json"
    fields = json.loads(path.read_text())
    fields["facts"]["case"] = "../../elsewhere"
    path.write_text(json.dumps(fields))
    with pytest.raises(DataSetError, match="1 of 1 cases are missing, or damaged"):
        SliceStore.open(store)


def test_array_of_a_map_that_claims_more_than_there_is_takes_no_memory(tmp_path):
    """In a process of its own, which may not have more memory than it has after loading."""
    write_map(graded_map(Grid(SHAPE, ras_affine())), tmp_path / "one.npz")
    program = f"""
import io, resource, sys, zipfile
import numpy as np
from pathlib import Path
from lungseg.errors import StorageError
from lungseg.segmentation.probability_io import read_map
path = Path({str(tmp_path / "one.npz")!r})
read_map(path)
with np.load(path) as stored:
    arrays = dict(stored)
for claim in ((10**12,), (40, 10**6, 10**6), (2**62, 4)):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr="|u1", fortran_order=False, shape=claim))
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array)
            archive.writestr(name + ".npy", header.getvalue() + bytes(99) if name == "canvases" else content.getvalue())
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 64 * 1024**2
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        read_map(path)
    except StorageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout.count("The probability map can't be read") == 3, done.stdout + done.stderr


def test_log_that_is_not_utf8_is_shown_all_the_same(settings):
    log = settings.runs / "r" / LOG
    assert training.log_lines(settings, "r", most=9) == []
    log.parent.mkdir(parents=True)
    log.write_bytes(b"one\nt\xffwo\nthree\n")
    assert training.log_lines(settings, "r", most=2) == ["t�wo", "three"]


@pytest.mark.parametrize(
    "head", [b"\xff\xfe", b"", b"ref: refs/heads/\xff", b"ref: " + b"x" * 5000, b"ref: a\0b", b"ref: .", b"no commit"]
)
def test_head_that_tells_no_commit(tmp_path, head):
    (tmp_path / "HEAD").write_bytes(head)
    assert runs.commit_of(tmp_path) is None


def config_in(folder, **changes):
    return TrainingConfig(**{"preset": "baseline", "data": folder, "output": folder / "run", "name": "run", **changes})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "x" * 201, "a\0b"])
def test_config_is_called_as_a_file_can_be(tmp_path, name):
    with pytest.raises(DataSetError, match="can't be called so"):
        config_in(tmp_path, name=name)
    assert config_in(tmp_path, name="My checkpoint, 2nd try").name


def test_seed_that_nothing_takes_is_refused(tmp_path):
    with pytest.raises(DataSetError, match="The seed is"):
        config_in(tmp_path, seed=2**63)


def write_film(folder):
    hu, lesion = chest()
    Film(Volume(hu, Grid(SHAPE, ras_affine())), lesion).write(folder / "film.gif")


def write_weights(folder):
    network, card = load_checkpoint(CHECKOUT / "models" / "lungseg-3.safetensors")
    save_checkpoint(network, replace(card, name="x"), folder)


def write_state(folder):
    from tests.fuzz.readers import _optimisation

    RunDirectory(config_in(folder)).save(_optimisation().state())


def write_store(folder):
    write_pair(folder.parent / "set", "lung_1", spot=(20, 16, 8), shape=(40, 34, 18))
    prepare(open_data_set(folder.parent / "set"), folder, workers=1)


SHIPPED = CHECKOUT / "models" / "lungseg-3.safetensors"
WRITERS = {
    "weights": write_weights,
    "card": lambda folder: write_checkpoint(folder / "x.safetensors", SHIPPED.read_bytes(), read_card(SHIPPED)),
    "state": write_state,
    "config": lambda folder: RunDirectory(config_in(folder)).begin(),
    "map": lambda folder: write_map(graded_map(Grid(SHAPE, ras_affine())), folder / "x.npz"),
    "picture": lambda folder: overlay.write_png(folder / "x.png", np.zeros((9, 9, 3), np.uint8)),
    "film": write_film,
    "report": lambda folder: write_text("text", folder / "x.json"),
    "store": write_store,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch, kind):
    folder = tmp_path / "out"
    folder.mkdir()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError) as caught:
        WRITERS[kind](folder)
    assert "disk is full" in caught.value.found
    assert [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"] == []


@pytest.mark.parametrize("kind", ["weights", "card", "report", "film", "map"])
def test_files_for_users_have_the_rights_that_all_their_files_have(tmp_path, kind):
    before = os.umask(0o022)
    try:
        WRITERS[kind](tmp_path)
    finally:
        os.umask(before)
    written = [path for path in tmp_path.iterdir() if path.is_file()]
    assert written
    assert {path.stat().st_mode & 0o777 for path in written} == {0o644}
