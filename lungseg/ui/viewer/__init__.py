"""The three-plane viewer: a Streamlit component whose modules, style and markup lie beside this module.

The component is told addresses, never voxels, and loads only what it does not hold yet, so that a rerun of the page
costs it nothing. `types.d.ts` says what it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from lungseg.config import Settings
from lungseg.records import Lesion, Mask, Segmentation
from lungseg.scans.overlay import DOUBTFUL_RGB, MASK_RGB, REFERENCE_RGB, WINDOWS
from lungseg.segmentation.postprocessing import DOUBTFUL_LABEL, UINT8_ONE
from lungseg.services.checkpoints import name_of
from lungseg.services.rethreshold import ThresholdState
from lungseg.services.viewing import CaseView
from lungseg.ui.formatting import ago, duration, exact, run_seconds
from lungseg.ui.navigation import checkpoint_address
from lungseg.ui.threshold import select_threshold
from lungseg.web.modules import entry_script
from lungseg.web.routes import bundle_address, mask_address, scan_address

COMPONENT = "viewer_planes"
WITHOUT_WEBGL = "viewer_without_webgl"
FOLDER = Path(__file__).parent
DOUBTFUL_NOTE = "Too improbable, or cut by an end of the scan: not in the counts and volumes, nor in the mask."


@dataclass(frozen=True, slots=True)
class LayerMask:
    """The mask of a layer, and its lesions.

    Attributes:
        url: its signed address; None where it can't be had, and only its lesions are listed.
        sha: its sha256; what has another one is loaded anew.
        mark: value of its voxels; None for any but 0.
        volume_ml: of its lesions.
        slice_voxels: its voxels in each axial slice.
        statement: what stands where it has no lesion.
        remark: what stands above its lesions; may be empty.
        probability_meaning: what the probabilities of its lesions are.
        lesions: largest first.
    """

    url: str | None
    sha: str | None
    volume_ml: float
    slice_voxels: Sequence[int]
    lesions: Sequence[Lesion]
    mark: int | None = None
    statement: str = ""
    remark: str = ""
    probability_meaning: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A mask over the scan, as the viewer is told of it; of several the first is drawn on top.

    Attributes:
        key: names it in links and in what a browser remembers; lower-case letters.
        label: its name on the page.
        name: its name in a sentence.
        list_name: what a screen reader calls the list of its lesions.
        colour: red, green, blue, 0 to 1.
        mask: None where there is none.
        fill: share of the opacity that its filled voxels take.
        shortcut: the key that shows and hides it; None for none.
        shown_with: key of the layer whose switch shows it too; None where it has a switch of its own.
        visible: whether it is shown at first.
        absence: what stands in the list where there is no mask; it is not listed then where this is empty.
    """

    key: str
    label: str
    name: str
    list_name: str
    colour: Sequence[float]
    mask: LayerMask | None
    fill: float = 1.0
    shortcut: str | None = None
    shown_with: str | None = None
    visible: bool = True
    absence: str = ""


_component = st.components.v2.component(
    "lungseg_viewer",
    html=(FOLDER / "viewer.html").read_text(encoding="utf-8"),
    css=(FOLDER / "viewer.css").read_text(encoding="utf-8"),
    js=entry_script("viewer/viewer.js"),
)


def can_draw() -> bool:
    """Tell whether this browser can draw the planes, as far as is known: it says so itself where it has no WebGL2."""
    return not st.session_state.get(WITHOUT_WEBGL, False)


def viewer(settings: Settings, scene: CaseView, note: str) -> None:
    """Draw the viewer of a case.

    Args:
        settings: of the installation.
        scene: the case.
        note: what stands where the model's lesions will be, as long as there is no mask of it.
    """
    _component(
        key=COMPONENT,
        data=scene_data(settings, scene, note),
        height="content",
        on_webgl2_change=_note_missing,
        on_threshold_change=_note_threshold,
    )


def _note_missing() -> None:
    st.session_state[WITHOUT_WEBGL] = True


def _note_threshold() -> None:
    asked = st.session_state[COMPONENT]["threshold"]
    select_threshold(asked["maskId"], asked["level"])


def scene_data(settings: Settings, scene: CaseView, note: str) -> dict[str, Any]:
    """Turn a case into what the component is told of it (`CaseData` in `types.d.ts`)."""
    grid, orientation = scene.grid, scene.orientation
    return {
        "caseId": scene.case.id,
        "bundleUrl": bundle_address(settings),
        "scan": {"url": scan_address(settings, scene.case), "sha": scene.case.scan_sha256},
        "grid": {
            "shape": grid.shape,
            "spacingMm": grid.spacing_mm,
            "affine": grid.affine.tolist(),
            "axes": orientation.axes,
            "flips": orientation.flips,
        },
        "layers": as_told(layers(settings, scene, note)),
        "windows": [
            {"name": name, "label": name.title(), "centre": centre, "width": width, "shortcut": str(number)}
            for number, (name, (centre, width)) in enumerate(WINDOWS.items(), start=1)
        ],
        "caution": scene.caution,
        "findings": as_told(scene.remarks),
        "threshold": threshold_data(scene.operation) if scene.operation else None,
        "provenance": _provenance(settings, scene),
    }


def layers(settings: Settings, scene: CaseView, note: str) -> tuple[Layer, ...]:
    """List the masks of a case, the topmost first."""
    return (
        Layer(
            key="model",
            label="Model",
            name="the model's mask",
            list_name="Lesions: model",
            colour=_shares(MASK_RGB),
            mask=_model_mask(settings, scene),
            shortcut="m",
            absence=note,
        ),
        Layer(
            key="doubtful",
            label="Doubtful",
            name="doubtful lesions",
            list_name="Doubtful lesions",
            colour=_shares(DOUBTFUL_RGB),
            mask=_doubtful_mask(settings, scene),
            shown_with="model",
        ),
        Layer(
            key="reference",
            label="Reference",
            name="the reference mask",
            list_name="Lesions: reference",
            colour=_shares(REFERENCE_RGB),
            mask=_layer_mask(settings, scene.reference, "No lesion in this mask") if scene.reference else None,
            fill=0.6,
            shortcut="r",
        ),
    )


def _layer_mask(settings: Settings, mask: Mask, statement: str, probability_meaning: str = "") -> LayerMask:
    return LayerMask(
        url=mask_address(settings, mask),
        sha=mask.sha256,
        volume_ml=mask.volume_ml,
        slice_voxels=mask.slice_voxels,
        lesions=mask.lesions,
        statement=statement,
        probability_meaning=probability_meaning,
    )


def _model_mask(settings: Settings, scene: CaseView) -> LayerMask | None:
    if scene.model is None:
        return None
    return _layer_mask(settings, scene.model, scene.statement, scene.probability_meaning)


def _doubtful_mask(settings: Settings, scene: CaseView) -> LayerMask | None:
    """Return what there is of doubtful lesions; they are listed, though not drawn, where their mask can't be had."""
    if scene.model is None or not scene.model.doubtful:
        return None
    marked = scene.marked
    return LayerMask(
        url=mask_address(settings, marked) if marked else None,
        sha=marked.sha256 if marked else None,
        volume_ml=sum(lesion.volume_ml for lesion in scene.model.doubtful),
        slice_voxels=marked.slice_voxels if marked else (),
        lesions=scene.model.doubtful,
        mark=DOUBTFUL_LABEL,
        remark=DOUBTFUL_NOTE if marked else f"{DOUBTFUL_NOTE} Their outlines are not there any more.",
        probability_meaning=scene.probability_meaning,
    )


def threshold_data(threshold: ThresholdState) -> dict[str, Any]:
    """Turn a threshold into what the component is told of it (`Threshold` in `types.d.ts`)."""
    levels = [choice.level for choice in threshold.choices]
    choices = [as_told(choice) | {"threshold": f"{choice.threshold:.2f}"} for choice in threshold.choices]
    place = {"at": threshold.at, "defaultAt": levels.index(threshold.default)}
    return {**as_told(threshold), **place, "choices": choices}


def as_told(value: Any) -> Any:
    """Turn records into what a script reads: objects whose names are written as scripts write them (`volumeMl`)."""
    if is_dataclass(value):
        return {_in_a_script(field.name): as_told(getattr(value, field.name)) for field in fields(value)}
    return [as_told(each) for each in value] if isinstance(value, list | tuple) else value


def _in_a_script(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _provenance(settings: Settings, scene: CaseView) -> list[tuple[str, str, str, str]]:
    """List how the model's mask came about: label, value, its whole where it is shortened, address of more about it."""
    run, mask, operation = scene.made_by, scene.model, scene.operation
    if run is None or mask is None or operation is None:
        return []
    result = run.result_as(Segmentation)
    sha256, seconds = run.checkpoint_sha256 or "", result.seconds if result else run_seconds(run)
    carded = name_of(settings, sha256) if sha256 else None
    rows = [
        ("Fingerprint", sha256[:12], f"SHA-256 of its weights: {sha256}"),
        ("Threshold", _threshold(operation), ""),
        ("Code", run.code_version, run.code_version),
        ("Device", run.device or "", run.device or ""),
        ("Took", duration(seconds) if seconds is not None else "", ""),
        ("Made", ago(mask.created_at), exact(mask.created_at)),
        ("Result", f"no. {mask.version} of this case", f"SHA-256 of the mask: {mask.sha256}"),
    ]
    card = ("Checkpoint", run.checkpoint or "", run.checkpoint or "", checkpoint_address(carded) if carded else "")
    return [card, *((label, value, whole or value, "") for label, value, whole in rows if value)]


def _threshold(operation: ThresholdState) -> str:
    shown, default = (f"{level / UINT8_ONE:.2f}" for level in (operation.level, operation.default))
    return shown if operation.level == operation.default else f"{shown}; the checkpoint's is {default}"


def _shares(colour: tuple[int, int, int]) -> list[float]:
    return [channel / 255 for channel in colour]
