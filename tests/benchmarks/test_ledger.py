"""The ledger of benchmark runs."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    from benchmarks import ledger

    return ledger


def test_a_run_is_appended_with_its_circumstances(ledger, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "bpe.py"), "--repeats", "3"])
    path = tmp_path / "ledger.jsonl"
    ledger.record("one", {"train_seconds": 1.5}, packages=("regex",), ledger=path)
    second = ledger.record("one", {"train_seconds": 2.5}, ledger=path)
    ledger.record("two", {}, ledger=path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["figures"] for line in lines] == [{"train_seconds": 1.5}, {"train_seconds": 2.5}, {}]
    assert set(lines[0]) == {
        "name", "command", "commit", "changed_files", "date", "hardware", "versions", "figures"
    }  # fmt: skip
    assert lines[0]["command"] == "python -m benchmarks.bpe --repeats 3"
    assert set(lines[0]["versions"]) == {"python", "numpy", "regex"}
    assert lines[0]["hardware"]["cores"] >= 1
    assert ledger.latest("one", path) == second
    with pytest.raises(ValueError, match=r"no run of 'three'.*'one', 'two'"):
        ledger.latest("three", path)


def test_tasks_run_in_turn(ledger):
    order = []
    seconds = ledger.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "ababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert ledger.median([3.0, 1.0, 2.00001]) == 2.0


def test_a_record_is_printed_with_its_circumstances(ledger, monkeypatch, capsys):
    monkeypatch.setattr(
        ledger,
        "hardware",
        lambda: {
            "processor": "Abacus",
            "cores": 3,
            "memory_gb": 7.1,
            "load_1min": 0.25,
            "system": "Linux x86_64",
        },
    )
    entry = ledger.entry_now("one", {"rows": 5}, command="python -m benchmarks.one")
    monkeypatch.setattr(
        ledger, "latest", lambda name: entry | {"changed_files": True, "commit": "c0ffee" * 6}
    )
    ledger.print_latest("one", lambda figures: f"{figures['rows']} rows")
    rows, command, moment, machine = capsys.readouterr().out.splitlines()
    assert (rows, command) == ("5 rows", "python -m benchmarks.one")
    day, hour = entry["date"][:10], entry["date"][11:16]
    assert moment == f"{day} {hour} UTC, load 0.25, commit c0ffeec0ff, uncommitted changes"
    assert machine == "Abacus, 3 cores, 7.1 GB, Linux x86_64"


FIGURES = {
    "generation": ("fp32_tokens_per_second", "int4_prompt_tokens_per_second", "library_tokens_per_second"),
    "roofline": ("read_gigabytes_per_second",),
    "serving": ("survivors", "texts_compared"),
    "speculative": (),
    "speedrun": ("baseline_seconds", "equal_time_loss"),
    "quantised_cache": (),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_last_record_has_a_table(ledger, name):
    """The book prints these tables, each with the figures that were recorded."""
    module = importlib.import_module(f"benchmarks.{name}")
    figures = ledger.latest(module.NAME)["figures"]
    table = module.table(figures)
    numbers = [float(n.replace(",", "")) for n in re.findall(r"-?\d[\d,]*\.?\d*", table)]
    for figure in FIGURES[name]:
        assert any(abs(n - figures[figure]) <= 0.5 for n in numbers), figure
    for row in figures.get("rows", ()):
        assert row["label"] in table
    assert max(map(len, table.splitlines())) <= 80  # the width of a page of the book


def test_every_line_of_the_ledger_reads():
    path = ROOT / "benchmarks" / "ledger.jsonl"
    if not path.is_file():
        pytest.skip("no benchmark was run yet")
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        assert entry["figures"]
        assert entry["commit"]
        assert "/" not in entry["command"]
