"""How many broken files the readers are given: a few hundred in `make test`, tens of thousands in the long run."""

import os

from hypothesis import HealthCheck, settings

from tests.fuzz.broken import COUNTS

LONG = 3000
"""Files for each test; eighteen tests make more than 50,000."""

settings.register_profile(
    "long", deadline=None, max_examples=LONG, derandomize=False, database=None,
    suppress_health_check=list(HealthCheck), print_blob=False,
)  # fmt: skip
if os.environ.get("HYPOTHESIS_PROFILE") == "long":
    settings.load_profile("long")


def pytest_terminal_summary(terminalreporter):
    """Print after the long run how many files each reader read and refused."""
    if not COUNTS or settings.default.max_examples < LONG:
        return
    terminalreporter.section("broken files")
    rows = [(name, counts["read"], counts["refused"], counts["uncaught"]) for name, counts in sorted(COUNTS.items())]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    terminalreporter.write_line(f"{'reader':24}{'cases':>9}{'read':>9}{'refused':>9}{'neither':>9}")
    for name, read, refused, neither in rows:
        terminalreporter.write_line(f"{name:24}{read + refused + neither:9}{read:9}{refused:9}{neither:9}")
