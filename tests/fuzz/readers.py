"""What is fuzzed: of each kind of file good ones, how they get damaged, and the reader with all that follows on it."""

import json
import shutil
from dataclasses import replace

import torch

from lungseg.config import Settings
from lungseg.dataset import store as stores
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint
from lungseg.dataset.split import read_split, split_cases
from lungseg.dataset.statistics import summarise_data_set, to_csv
from lungseg.dataset.store import SliceStore, is_store, prepare
from lungseg.db import open_database
from lungseg.decoding import to_plain
from lungseg.files import keys
from lungseg.recipes.scenes.corpus import read_crops, read_nodules
from lungseg.recipes.scenes.manifest import FILE as CORPUS_FILE
from lungseg.recipes.scenes.manifest import SHIPPED as SHIPPED_MANIFEST
from lungseg.recipes.scenes.manifest import read_corpus_manifest
from lungseg.records.identities import IdentityEntry
from lungseg.scans import formats
from lungseg.scans.geometry import Grid
from lungseg.segmentation.card import NetworkShape, read_card
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.segmentation.postprocessing import LesionRule
from lungseg.segmentation.probability_io import read_map
from lungseg.segmentation.unet import UNet
from lungseg.segmentation.weights_file import weights_sha256, with_card
from lungseg.services import cases, identity, manifests, promotion, rethreshold, runs, training
from lungseg.services.checkpoints import name_of, read_checkpoint
from lungseg.services.installation import Installation
from lungseg.services.run_folder import LOG
from lungseg.training.batches import Batch
from lungseg.training.config import TrainingConfig
from lungseg.training.optimisation import Optimisation
from lungseg.training.presets.files import find_preset, preset_paths, read_preset
from lungseg.training.state import DataRecord, RunDirectory, read_config
from tests.cards import CALIBRATED, as_older, save_scenes
from tests.data_sets import write_json, write_pair
from tests.fuzz import strangers
from tests.fuzz.binary import damaged_archive, damaged_array, damaged_numbers, damaged_tensors
from tests.fuzz.damage import damaged_bytes, damaged_json, damaged_table
from tests.fuzz.scan_reader import read_scan
from tests.fuzz.scans import RADIUS_MM, SHAPE, SPACING_MM, SPOT, damaged_scan, good_mask, good_scans
from tests.fuzz.target import Target
from tests.installations import installation_of
from tests.narrowing import existing
from tests.phantoms import graded_map, ras_affine
from tests.seeds import add_case, add_prediction
from tests.training_data import write_crops, write_nodules

LEVEL = 60
ENTRY = IdentityEntry(
    "P-22222-33333", "4711", "", "Doe^Jane", "19600115", "A1", "1", "20240229", -77, {"2.25.1": "1.2.3"}
)
LEARNED = replace(find_preset("baseline").optimisation, ema=0.9, amp=False)


class Workshop:
    """An installation with one of each file, all good, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.settings = Settings(
            home=folder / "home", models=folder / "models", database_url=f"sqlite:///{folder / 'home' / 'fuzz.sqlite'}",
            device="cpu", checkpoint="whole", data_roots=(folder,),
        )  # fmt: skip
        for name in ("home", "scans", "models", "run", "git"):
            (folder / name).mkdir()
        self.database = open_database(self.settings.database_url)
        save_scenes(self.settings.models)

    def close(self):
        self.database.close()

    def targets(self):
        """Make all kinds."""
        strange = self.folder / "strange"
        strange.mkdir()
        return (
            *self._scans(),
            *strangers.targets(strange),
            *self._checkpoints(),
            *self._data_sets(),
            *self._training(),
            *self._results(),
        )

    def _scans(self):
        seeds = tuple(good_scans(self.folder))
        yield Target("scan", self.folder / "scans" / "scan.nii", seeds, damaged_scan, read_scan, share=60)
        grid = Grid(SHAPE, ras_affine(SPACING_MM))
        mask = Target(
            "mask",
            self.folder / "scans" / "mask.nii",
            (good_mask(self.folder),),
            damaged_scan,
            lambda path: formats.read_label_map(path, grid),
            share=6,
        )
        yield mask
        yield Target(
            "scan, uploaded", self.folder / "scans" / "upload.nii", seeds, damaged_scan, self._upload, share=12
        )

    def _upload(self, path):
        with path.open("rb") as stream:
            case = cases.ingest(Installation(self.settings, self.database), "scan.nii.gz", stream)
        cases.delete_case(Installation(self.settings, self.database), case.id)

    def _checkpoints(self):
        weights = self.settings.models / "whole.safetensors"
        inside = self.folder / "inside.json"
        inside.write_bytes(weights.with_suffix(".json").read_bytes())
        yield self._target("card inside weights", inside, as_json, self._read_inside, share=6)
        as_older(weights)
        yield self._target("card", weights.with_suffix(".json"), as_json, self._read_card, share=3)
        yield self._target("weights, right sha256", weights, damaged_tensors, _load_weights)

    def _read_card(self, path):
        promotion.promoted_names(self.settings)
        name_of(self.settings, "0" * 64)
        card = read_checkpoint(self.settings, "whole").card
        card.to_json()
        return load_checkpoint(path.with_suffix(".safetensors"))

    def _read_inside(self, path):
        weights = self.folder / "inside.safetensors"
        whole = (self.settings.models / "whole.safetensors").read_bytes()
        weights.write_bytes(with_card(whole, path.read_bytes().decode(errors="replace")))
        read_card(weights).to_json()
        return load_checkpoint(weights)

    def _data_sets(self):
        folder = self.folder / "set"
        for number in (1, 2):
            write_pair(folder, f"lung_{number}", spot=SPOT, shape=SHAPE, spacing_mm=SPACING_MM, lesion_hu=20 + number)
        write_json(folder)
        (folder / "patients.csv").write_text("case,patient\nlung_1,A\nlung_2,B\n")
        store = prepare(open_data_set(folder), self.folder / "store", workers=1)
        split = self.folder / "split.json"
        split.write_text(json.dumps({"train": ["lung_1"], "validation": ["lung_2"]}))
        yield self._target("dataset.json", folder / "dataset.json", as_json, _read_data_set)
        yield self._target("patients.csv", folder / "patients.csv", as_table, _read_data_set)
        yield self._target("store, index", store.folder / "index.json", as_json, _read_store)
        yield self._target("store, case", store.folder / "lung_1.case.json", as_json, _read_store, share=3)
        yield self._target("store, array", store.folder / "lung_1.hu.npy", damaged_array, _read_store)
        yield self._target(
            "split", split, as_json, lambda path: split_cases(store.cases, fixed=read_split(path)), share=1
        )

    def _training(self):
        for name, write, read in (("nodules", write_nodules, read_nodules), ("crops", write_crops, read_crops)):
            write(self.folder / name)
            index = self.folder / name / "index.csv"
            yield self._target(
                f"index of {name}", index, as_table, lambda path, read=read: list(read(path.parent)), share=1
            )
        manifest = self.folder / "corpus" / CORPUS_FILE
        manifest.parent.mkdir()
        shutil.copyfile(SHIPPED_MANIFEST, manifest)
        yield self._target(
            "manifest of a corpus", manifest, damaged_bytes, lambda path: read_corpus_manifest(path.parent), share=1
        )
        preset = self.folder / "mine.toml"
        shutil.copyfile(preset_paths()["neighbours"], preset)
        yield self._target("preset", preset, damaged_bytes, read_preset, share=1)
        config = TrainingConfig(preset="baseline", data=self.folder / "set", output=self.folder / "run", name="run")
        optimisation = _optimisation()
        optimisation.step(_batch(), print)
        run = RunDirectory(config)
        run.begin()
        run.save(optimisation.state(), DataRecord({}))
        yield self._target(
            "config", config.output / "run.config.json", as_json, lambda path: read_config(path.parent).to_json()
        )
        state = config.output / "run.resume"
        yield self._target("state", state, damaged_numbers, lambda _path: _resume(config), share=3)
        (self.folder / "git" / "HEAD").write_text("0123456789abcdef0123456789abcdef01234567\n")
        yield self._target(
            "git HEAD", self.folder / "git" / "HEAD", damaged_bytes, lambda p: runs.commit_of(p.parent), share=1
        )

    def _results(self):
        home = self.settings.home
        scan = self.folder / "scans" / "case.nii.gz"
        scan.write_bytes(good_scans(self.folder)[0])
        case = add_case(self.settings, self.database, scan, "case")
        probability = graded_map(Grid(SHAPE, ras_affine(SPACING_MM)), SPOT, RADIUS_MM)
        add_prediction(
            self.settings, self.database, case, probability.above(0.5), probability=probability, **CALIBRATED
        )
        mask = cases.masks_of(installation_of(self.database), case.id)[0]
        self._case, self._mask = case, mask
        self._move(None)
        yield self._target(
            "probability map", home / keys.probability(mask.id), damaged_archive, self._read_map, share=3
        )
        facts = home / "derived" / f"{mask.id}.{LEVEL}.json"
        yield self._target("derived mask, facts", facts, as_json, self._move, share=1)
        yield self._target(
            "manifest",
            self.settings.home / keys.mask_manifest(mask.id),
            as_json,
            lambda path: manifests.read_manifest(manifests.MaskManifest, path),
        )
        identity.keep_entry(installation_of(self.database), case.id, ENTRY)
        entry = self.settings.home / keys.identity(case.id)
        yield self._target(
            "identity", entry, as_json, lambda _: identity.entry_of(installation_of(self.database), case.id), share=1
        )
        run_id = existing(mask.run_id)
        log = self.settings.runs / run_id / LOG
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("2026-01-01 INFO epoch 1 of 2\n" * 20)
        yield self._target(
            "log", log, damaged_bytes, lambda _: training.log_lines(self.settings, run_id, most=9), share=1
        )
        columns = self.folder / "columns.json"
        kept = {
            "configuration": to_plain(runs.get_run(installation_of(self.database), run_id).config),
            "warnings": ["x"],
            "tags": ["y"],
        }
        kept |= {"progress": {"stage": "x", "done": 1}, "failure": {"code": "x", "found": "y", "remedy": "z"}}
        columns.write_text(json.dumps(kept))
        yield self._target("columns of a run", columns, values_of_json, self._read_columns)

    def _move(self, _path):
        run = runs.get_run(installation_of(self.database), existing(self._mask.run_id))
        return rethreshold.mask_at(self.settings, self._case, self._mask, run, LEVEL)

    def _read_map(self, path):
        return LesionRule(0.5, 0.1, CALIBRATED["calibration"], 0.2).apply(read_map(path), 0.4)

    def _read_columns(self, path):
        """Put the columns of a run into the database, and those that were there back again."""
        from lungseg.db.runs import run_of
        from lungseg.db.tables import RunRow

        columns = json.loads(path.read_bytes())
        columns = columns if isinstance(columns, dict) else {"configuration": columns}
        with self.database.read() as session:
            row = existing(session.get(RunRow, self._mask.run_id))
            session.expunge(row)
        for name in ("configuration", "warnings", "tags", "progress", "failure"):
            if name in columns:
                setattr(row, name, columns[name])
        run = run_of(row)
        return rethreshold.threshold_state(self.settings, self._mask, run, LEVEL)

    def _target(self, name, path, damage, read, *, share=2):
        return Target(name, path, (path.read_bytes(),), damage, read, share)


def as_json(raw, rng, _others):
    """Damage JSON."""
    return damaged_json(raw, rng)


def values_of_json(raw, rng, _others):
    """Damage values of JSON that stays JSON, as a database keeps it."""
    while True:
        changed = damaged_json(raw, rng)
        try:
            json.loads(changed)
        except (ValueError, RecursionError):
            continue
        return changed


def as_table(raw, rng, _others):
    """Damage CSV."""
    return damaged_table(raw, rng)


def _load_weights(path):
    card = path.with_suffix(".json")
    before = card.read_bytes()
    card.write_text(json.dumps(json.loads(before) | {"sha256": weights_sha256(path)}))
    try:
        network, _ = load_checkpoint(path)
        return network(torch.zeros(1, network.shape.channels, 16, 16))
    finally:
        card.write_bytes(before)


def _read_data_set(path):
    data_set = open_data_set(path.parent)
    return lint(data_set, ()), json.dumps(to_plain(data_set))


def _read_store(path):
    stores._header.cache_clear()
    is_store(path.parent)
    store = SliceStore.open(path.parent)
    findings, statistics = lint(store.data_set, store.facts), summarise_data_set(store.data_set, store.facts)
    json.dumps(to_plain(statistics), allow_nan=False)
    to_csv(statistics.rows)
    for case in store.cases:
        depth = len(case.slice_tumour_px)
        _ = case.frame, case.hu[depth - 1], case.hu_of(0, depth), case.tumour_of(depth - 1), case.tumour[0]
    return findings


def _optimisation():
    network = UNet(NetworkShape(width=4, depth=2, channels=1))
    return Optimisation(network, LEARNED, device=torch.device("cpu"), steps=9)


def _batch():
    return Batch(torch.rand((2, 1, 16, 16)), torch.zeros((2, 1, 16, 16), dtype=torch.uint8))


def _resume(config):
    optimisation = _optimisation()
    if RunDirectory(config).restore(optimisation):
        optimisation.step(_batch(), lambda _text: None)
