"""The stored table of equivalence is that of the present code's rows, and every row keeps to the limit."""

import re

import pytest

from llm_from_scratch.recipes import distributed_equivalence as module
from llm_from_scratch.recipes.distributed_equivalence import LIMIT, load_record, rows_to_measure, table


def test_every_row_of_the_code_is_in_the_record_and_within_the_limit():
    record = load_record()
    ways = [
        {name: row[name] for name in ("strategy", "processes", "checkpoint", "run")} for row in record["rows"]
    ]
    assert ways == rows_to_measure()
    assert LIMIT == record["limit"] == 1e-5
    assert all(0 <= row["largest_difference"] <= LIMIT for row in record["rows"])


def test_the_record_says_what_was_run():
    record = load_record()
    assert record["command"] == f"python -m {module.MODULE}"
    assert re.fullmatch("[0-9a-f]{40}", record["commit"])  # of a tree without changes
    assert (record["steps"], record["backend"].startswith("gloo")) == (module.STEPS, True)
    assert record["steps"] >= 50
    first, last = record["first_and_last_loss"]
    assert last < first - 1  # it has learned: equal losses of a run that stands still would say little
    assert record["hardware"]["processor"]


def test_some_difference_was_measured():
    """Sums in another order differ in the last digits: only zeros would mean that nothing was compared."""
    assert any(row["largest_difference"] > 0 for row in load_record()["rows"])


def test_a_row_above_the_limit_is_the_exit_code(monkeypatch, capsys):
    record = load_record()
    monkeypatch.setattr("sys.argv", ["distributed_equivalence", "--table"])
    assert module.main() == 0
    assert capsys.readouterr().out.startswith(table(record))
    record["rows"][3]["largest_difference"] = 2e-5
    monkeypatch.setattr(module, "load_record", lambda: record)
    assert module.main() == 1
    assert "2.0e-05" in capsys.readouterr().out


@pytest.mark.parametrize("changed", ["fewer", "other"])
def test_a_run_that_took_other_steps_is_no_row(tmp_path, changed):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    plain = {(1, "loss"): 2.5, (2, "loss"): 2.0} if changed == "fewer" else {(1, "val_loss"): 2.5}
    with pytest.raises(ValueError, match="took other steps"):
        module._largest(plain, tmp_path)
    assert module._largest({(1, "loss"): 2.25}, tmp_path) == 0.25
