"""What is measured beside time (memory, mostly) is printed below the medians."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Print the extra figures of every benchmark, which the plugin only writes into its JSON."""
    for benchmark in config._benchmarksession.benchmarks:
        for name, value in benchmark.extra_info.items():
            terminalreporter.write_line(f"{benchmark.name}: {name} = {value:.0f}")
