"""For all tests: hypothesis judges results, not how busy the machine is; and in CI nothing is left out in silence."""

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")

MAY_BE_SKIPPED = ("root may read everything", "needs a control plane of its own", "needs nodes of its own")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors on one thread: more only wait for each other, and sum in another order on another machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true, "cannot run here" is a failure, but for what no machine of the gate can do."""
    report = yield
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    expected = hasattr(report, "wasxfail") or reason.endswith(MAY_BE_SKIPPED)
    if report.skipped and os.environ.get("CI") and not expected:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI is set. {reason}"
    return report
