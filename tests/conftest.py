"""Which tests may run side by side."""

import pytest

RUNS = ("tests/integration/", "tests/slurm/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give all tests with whole runs to one worker, because two runs would share cores and memory; others by file."""
    from xdist.scheduler import LoadScopeScheduling

    class RunsApart(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "runs" if nodeid.startswith(RUNS) else nodeid.partition("::")[0]

    return RunsApart(config, log)
