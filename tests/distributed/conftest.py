"""Fixtures of the tests that run whole jobs."""

from real_runs import manifest, running  # noqa: F401
