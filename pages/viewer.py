"""The viewer of one case; `?case=ID` leads to it."""

from __future__ import annotations

from lungseg.errors import LungSegError
from lungseg.services import cases, viewer_bundle
from lungseg.services.viewing import view_of
from lungseg.ui.case_header import case_bar, choose_case, with_no_scene
from lungseg.ui.fallback import fallback_viewer
from lungseg.ui.notice import notice
from lungseg.ui.resources import installation, settings
from lungseg.ui.viewer import can_draw, chosen_threshold, viewer

summaries = cases.list_cases(installation())
case_id = choose_case(summaries)
if case_id is not None:
    try:
        scene = view_of(installation(), case_id, chosen=chosen_threshold())
    except LungSegError as error:
        with_no_scene(summaries, error, case_id)
    else:
        notice()
        note = case_bar(scene, summaries)
        bundle = viewer_bundle.status(settings())
        if not bundle.is_ready:
            fallback_viewer(scene, bundle.lack)
        elif not can_draw():
            fallback_viewer(scene)
        else:
            viewer(settings(), scene, note)
