"""The three-plane viewer: a Streamlit component whose modules, style and markup lie beside this module.

The component gets addresses, never voxels, and loads only what it does not hold yet, so that a rerun of the page costs
nothing. `types.d.ts` has the types of its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from lungseg.config import Settings
from lungseg.records.masks import Lesion, Mask
from lungseg.records.run_results import Segmentation
from lungseg.scans.overlay import DOUBTFUL_RGB, MASK_RGB, REFERENCE_RGB, WINDOWS
from lungseg.segmentation.postprocessing import DOUBTFUL_LABEL, UINT8_ONE
from lungseg.services.checkpoints import name_of
from lungseg.services.rethreshold import ThresholdState
from lungseg.services.viewing import CaseView
from lungseg.ui.formatting import ago, duration, exact, run_seconds
from lungseg.ui.navigation import checkpoint_address
from lungseg.web.modules import entry_script
from lungseg.web.routes import bundle_address, mask_address, scan_address

COMPONENT = "viewer_planes"
WITHOUT_WEBGL, THRESHOLD = "viewer_without_webgl", "viewer_chosen"
FOLDER = Path(__file__).parent
DOUBTFUL_NOTE = "Too improbable, or cut by an end of the scan: not in the counts and volumes, nor in the mask."


@dataclass(frozen=True, slots=True)
class LayerMask:
    """The mask of a layer, and its lesions.

    Attributes:
        url: its signed address; None where it is not available, and only its lesions are listed.
        sha: its sha256; a mask with another one is loaded again.
        mark: value of its voxels; None for any but 0.
        volume_ml: of its lesions.
        slice_voxels: its voxels in each axial slice.
        statement: the text that stands in the place of lesions where it has none.
        remark: the text above its lesions; may be empty.
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
    """A mask over the scan; of several the first is drawn on top.

    Attributes:
        key: its name in links and in the memory of a browser; lower-case letters.
        label: its name on the page.
        name: its name in a sentence.
        list_name: accessible name of the list of its lesions.
        colour: red, green, blue, 0 to 1.
        fill: share of the opacity that its filled voxels take.
        shortcut: the key that shows and hides it.
        shown_with: key of the layer whose switch shows it too; None where it has a switch of its own.
        visible: whether it is shown at first.
        absence: the text that stands in the list where there is no mask; without one it is not listed then.
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
    """Tell whether this browser can draw the planes; a browser without WebGL2 reports that itself."""
    return not st.session_state.get(WITHOUT_WEBGL, False)


def viewer(settings: Settings, scene: CaseView, note: str) -> None:
    """Draw the viewer of a case; `note` stands in the place of the model's lesions until there is a mask."""
    _component(
        key=COMPONENT,
        data=scene_data(settings, scene, note),
        height="content",
        on_webgl2_change=lambda: st.session_state.update({WITHOUT_WEBGL: True}),
        on_threshold_change=_note_threshold,
    )


def _note_threshold() -> None:
    choice = st.session_state[COMPONENT]["threshold"]
    select_threshold(choice["maskId"], choice["level"])


def select_threshold(mask_id: str, level: int) -> None:
    """Show a mask at another threshold, in 255ths, from the next run of the page on."""
    st.session_state[THRESHOLD] = (mask_id, level)


def chosen_threshold() -> tuple[str, int] | None:
    """Return the id of the mask and the threshold that this browser tab chose last; None where it chose none."""
    choice: tuple[str, int] | None = st.session_state.get(THRESHOLD)
    return choice


def scene_data(settings: Settings, scene: CaseView, note: str) -> dict[str, Any]:
    """Return the data of a case for the component (`CaseData` in `types.d.ts`)."""
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
        "layers": to_script(layers(settings, scene, note)),
        "windows": [
            {"name": name, "label": name.title(), "centre": centre, "width": width, "shortcut": str(number)}
            for number, (name, (centre, width)) in enumerate(WINDOWS.items(), start=1)
        ],
        "caution": scene.caution,
        "findings": to_script(scene.remarks),
        "threshold": threshold_data(scene.threshold) if scene.threshold else None,
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
            mask=_layer_mask(settings, scene.model, scene.statement, scene.probability_meaning),
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
            mask=_layer_mask(settings, scene.reference, "No lesion in this mask"),
            fill=0.6,
            shortcut="r",
        ),
    )


def _layer_mask(
    settings: Settings, mask: Mask | None, statement: str, probability_meaning: str = ""
) -> LayerMask | None:
    if mask is None:
        return None
    return LayerMask(
        url=mask_address(settings, mask),
        sha=mask.sha256,
        volume_ml=mask.volume_ml,
        slice_voxels=mask.slice_voxels,
        lesions=mask.lesions,
        statement=statement,
        probability_meaning=probability_meaning,
    )


def _doubtful_mask(settings: Settings, scene: CaseView) -> LayerMask | None:
    """Return the doubtful lesions; they are listed, though not drawn, where their mask is not available."""
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
        remark=DOUBTFUL_NOTE if marked else f"{DOUBTFUL_NOTE} Their outlines are no longer available.",
        probability_meaning=scene.probability_meaning,
    )


def threshold_data(threshold: ThresholdState) -> dict[str, Any]:
    """Return the data of a threshold for the component (`Threshold` in `types.d.ts`)."""
    levels = [choice.level for choice in threshold.choices]
    choices = [to_script(choice) | {"threshold": f"{choice.threshold:.2f}"} for choice in threshold.choices]
    places = {"at": levels.index(threshold.level), "defaultAt": levels.index(threshold.default)}
    return {**to_script(threshold), **places, "choices": choices}


def to_script(value: Any) -> Any:
    """Turn records into objects for a script, with names in camel case (`volumeMl`)."""
    if is_dataclass(value):
        return {_camel_case(field.name): to_script(getattr(value, field.name)) for field in fields(value)}
    return [to_script(item) for item in value] if isinstance(value, list | tuple) else value


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _provenance(settings: Settings, scene: CaseView) -> list[tuple[str, str, str, str]]:
    """Return the origin of the model's mask in rows: label, value, hover text, address of a page on it."""
    run, mask, threshold = scene.made_by, scene.model, scene.threshold
    if run is None or mask is None or threshold is None:
        return []
    result = run.result_as(Segmentation)
    sha256, seconds = run.checkpoint_sha256 or "", result.seconds if result else run_seconds(run)
    card_name = name_of(settings, sha256) if sha256 else None
    rows = [
        ("Fingerprint", sha256[:12], f"SHA-256 of its weights: {sha256}"),
        ("Threshold", _threshold(threshold), ""),
        ("Code", run.code_version, run.code_version),
        ("Device", run.device or "", run.device or ""),
        ("Took", duration(seconds) if seconds is not None else "", ""),
        ("Made", ago(mask.created_at), exact(mask.created_at)),
        ("Result", f"no. {mask.version} of this case", f"SHA-256 of the mask: {mask.sha256}"),
    ]
    card = (
        "Checkpoint",
        run.checkpoint or "",
        run.checkpoint or "",
        checkpoint_address(card_name) if card_name else "",
    )
    return [card, *((label, value, title or value, "") for label, value, title in rows if value)]


def _threshold(threshold: ThresholdState) -> str:
    shown, default = (f"{level / UINT8_ONE:.2f}" for level in (threshold.level, threshold.default))
    return shown if threshold.level == threshold.default else f"{shown}; the checkpoint's is {default}"


def _shares(colour: tuple[int, int, int]) -> list[float]:
    return [channel / 255 for channel in colour]
