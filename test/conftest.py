"""Options and fixtures shared by all tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests, and only those")


def pytest_collection_modifyitems(config, items):
    slow = config.getoption("--slow")
    selected = [item for item in items if (item.get_closest_marker("slow") is not None) == slow]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(selected)])
    items[:] = selected


@pytest.fixture(autouse=True)
def _one_thread():
    """Fixed thread count and seed, so that a test's numbers are the same on every machine."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
