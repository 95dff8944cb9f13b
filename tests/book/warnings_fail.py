"""A pytest plugin beside nbval: a cell that writes to stderr fails, also where its output is not compared.

Warnings, progress bars and log lines go to stderr, and no chapter may show any. Loaded by `make notebooks`
with ``-p tests.book.warnings_fail``.
"""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    wrote = [output.text for output in getattr(item, "test_outputs", None) or [] if is_stderr(output)]
    if wrote:
        pytest.fail("the cell wrote to stderr:\n" + "".join(wrote)[:2000], pytrace=False)
    return result


def is_stderr(output) -> bool:
    """Tell whether an output of a cell is a stream to stderr."""
    return output.get("output_type") == "stream" and output.get("name") == "stderr"
