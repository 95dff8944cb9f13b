"""One process, one configuration, one run a folder."""

import os
import subprocess
import sys

import pytest

from llm_from_scratch.files import atomic_path
from llm_from_scratch.training.run_folder import LEFTOVER, run_folder

CONFIG = {"training": {"steps": 12, "betas": (0.9, 0.95)}, "recipe": {"name": "a"}}


def begin(path, config=CONFIG, *, resume=False):
    with run_folder(path, config=config, resume=resume):
        pass


def test_a_new_run_stores_its_configuration_and_leaves_no_owner(tmp_path):
    begin(tmp_path / "deep" / "run")
    assert (tmp_path / "deep" / "run" / "config.json").is_file()
    assert not (tmp_path / "deep" / "run" / "run.pid").exists()


def test_a_second_run_needs_resume_or_another_folder(tmp_path):
    begin(tmp_path)
    with pytest.raises(ValueError, match=r"already holds a run .*--resume.*--out"):
        begin(tmp_path)
    begin(tmp_path, resume=True)


def test_resume_names_the_first_changed_field(tmp_path):
    begin(tmp_path)
    changed = {**CONFIG, "training": {"steps": 12, "betas": (0.9, 0.99)}}
    with pytest.raises(ValueError, match=r"training\.betas = \[0\.9, 0\.95\], not \[0\.9, 0\.99\]"):
        begin(tmp_path, changed, resume=True)
    with pytest.raises(ValueError, match=r'training\.new = "absent", not 1'):
        begin(tmp_path, {**CONFIG, "training": {**CONFIG["training"], "new": 1}}, resume=True)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"not empty \(thesis\.txt\)"):
            begin(tmp_path, resume=resume)
    with pytest.raises(ValueError, match="is a file, not a folder"):
        begin(tmp_path / "thesis.txt")


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_what_a_file_manager_leaves_does_not_count(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0")
    begin(tmp_path)
    assert (tmp_path / name).read_bytes() == b"\0"


def test_temporary_files_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    begin(tmp_path)
    names = [".checkpoints.json.17830.cc8da3b1.tmp", "notes.tmp", ".mine.tmp"]
    for name in names:
        (tmp_path / name).touch()
    begin(tmp_path, resume=True)
    assert [name for name in names if (tmp_path / name).exists()] == names[1:]


def test_the_temporary_names_are_those_that_are_written(tmp_path):
    with atomic_path(tmp_path / "log.jsonl") as temporary:
        temporary.touch()
        assert LEFTOVER.fullmatch(temporary.name)


HOLD = """
import sys
from llm_from_scratch.training.run_folder import run_folder
with run_folder(sys.argv[1], config={"training": {}}, resume=True):
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_share_a_folder_and_a_killed_one_leaves_it_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "holding\n"
        with pytest.raises(ValueError, match=rf"in use by another process \(pid {first.pid}\)"):
            begin(tmp_path, {"training": {}}, resume=True)
        first.kill()
        first.wait()
    assert (tmp_path / "run.pid").read_text(encoding="utf-8").strip() == str(first.pid)  # it died holding it
    begin(tmp_path, {"training": {}}, resume=True)
    assert os.listdir(tmp_path)
