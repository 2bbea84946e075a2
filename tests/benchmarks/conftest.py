"""Figures that are promised are compared: a benchmark names its targets, and what it missed is said below the medians.

Memory and the like stand in `benchmark.extra_info`. Nothing fails by a missed target: machines are noisy, people judge.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

TARGET = "target"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "target(at_most={figure: bound}, at_least={figure: bound}): what is promised; the figure `median_s` is the "
        "time, all others stand in `benchmark.extra_info`",
    )


@pytest.fixture(autouse=True)
def targets(request: pytest.FixtureRequest, benchmark) -> Iterator[None]:
    """Keep the targets of a benchmark with its figures."""
    yield
    if marker := request.node.get_closest_marker(TARGET):
        benchmark.extra_info[TARGET] = marker.kwargs


@pytest.fixture
def page():
    """A page of a browser that runs already."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as api, api.chromium.launch(executable_path=chromium, args=flags) as browser:
        yield browser.new_page(viewport={"width": 1440, "height": 900})


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the extra figures of every benchmark, and which targets were missed."""
    for benchmark in config._benchmarksession.benchmarks:  # type: ignore[attr-defined] # of the plugin
        bounds = benchmark.extra_info.get(TARGET, {})
        figures = {name: value for name, value in benchmark.extra_info.items() if name != TARGET}
        figures["median_s"] = benchmark.stats.median
        for name, value in figures.items():
            terminalreporter.write_line(f"{benchmark.name}: {name} = {value:.4g}{_judged(name, value, bounds)}")


def _judged(name: str, value: float, bounds: dict[str, dict[str, float]]) -> str:
    """Say how a figure stands to its target; nothing where none is promised."""
    for kind, is_missed in (("at_most", lambda bound: value > bound), ("at_least", lambda bound: value < bound)):
        if (bound := bounds.get(kind, {}).get(name)) is not None:
            return f" ({kind.replace('_', ' ')} {bound:g}: {'MISSED' if is_missed(bound) else 'kept'})"
    return ""
