"""Tests that run vLLM itself: `make test-vllm`, in an environment of their own. Elsewhere they are skipped."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The hook sees the tests of all folders. Asked for by name they run or fail, whatever is installed.
    if os.environ.get("CONG_TEST_VLLM") == "1":
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason="needs vLLM: make test-vllm"))
