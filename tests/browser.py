"""The Chromium in which page tests look at pages."""

from __future__ import annotations

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Where it is. Without one the test is skipped, and in CI it fails: a page must have been looked at."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI=true, and no chromium is installed: pages cannot be shown to render")
        pytest.skip("needs chromium")
    return found
