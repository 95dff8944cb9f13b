"""Two hundred requests, sixteen at once, a third given up midway, nonsense in between: nothing is lost."""

import sys

import pytest

from benchmarks.serving import load_test, write_tiny


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="threads and files are counted in /proc")
def test_the_load_test(tmp_path):
    write_tiny(tmp_path / "tiny")
    found = load_test(str(tmp_path / "tiny"), requests=200, concurrent=16, tokens=60)
    assert found["stderr"] == []
    assert found["lost"] == 0
    assert found["cancelled"] + found["survivors"] == 200
    assert 60 <= found["cancelled"] <= 67  # an answer may end before its reader leaves
    assert found["malformed_refused"] == 22
    assert (found["texts_compared"], found["texts_that_differ"]) == (found["survivors"], 0)
    assert found["files_after"] <= found["files_before"] + 2
    assert found["threads_after"] <= found["threads_before"] + 8  # a pool for long prompts, of bounded size
    assert found["megabytes_after"] <= found["megabytes_before"] + 30
    assert found["exit_code"] == 0
