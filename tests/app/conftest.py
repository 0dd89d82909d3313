"""What all tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import app_test


@pytest.fixture(scope="session", autouse=True)
def tidy_streamlit() -> Iterator[None]:
    """AppTest makes a temporary folder when it is imported and leaves its removal to the end of the process."""
    yield
    app_test.TMP_DIR.cleanup()
