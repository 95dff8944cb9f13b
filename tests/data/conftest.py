"""Fixtures of the data tests: no test may reach the network or the user's own cache."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_folders_of_the_user(monkeypatch, tmp_path_factory):
    """Point the cache at an empty folder and unset the data folder."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.delenv("LLM_FROM_SCRATCH_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: cache / project)
    return cache


@pytest.fixture
def shared_data(monkeypatch):
    """The folder with Tiny Shakespeare, where there is one."""
    if not (SHARED_DATA / "tinyshakespeare.txt").is_file():
        pytest.skip(f"no {SHARED_DATA.name} folder beside the checkout")
    monkeypatch.setenv("LLM_FROM_SCRATCH_DATA", str(SHARED_DATA))
    return SHARED_DATA
