"""Whole files or none: full disks, crashes and interrupts."""

import errno
import os
import shutil
import stat

import pytest

from llm_from_scratch import files
from llm_from_scratch.files import atomic_path, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        (b"\x00\xff\r\n", b"\x00\xff\r\n"),
        ("a\nü\r\n", "a\nü\r\n".encode()),
        ("", b""),
        (bytearray(b"x"), b"x"),
    ],
)
def test_content_is_stored_byte_for_byte(tmp_path, content, stored):
    path = tmp_path / "deep" / "er" / "file.txt"
    write_atomically(path, content)
    assert path.read_bytes() == stored
    assert names(path.parent) == ["file.txt"]


def test_other_content_is_refused(tmp_path):
    with pytest.raises(TypeError, match="int"):
        write_atomically(tmp_path / "file", 3)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "file", "\ud800")
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["write", "flush", "rename"])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, step, code):
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")

    def full(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    if step == "flush":
        monkeypatch.setattr(os, "fsync", full)
    if step == "rename":
        monkeypatch.setattr(os, "replace", full)
    message = r"disk is full.*model\.bin.*Free some space"
    with pytest.raises(OSError, match=message) as caught, atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half of the n")
        if step == "write":
            full()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.bin"]


def test_a_library_that_hides_the_full_disk_is_understood(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="disk is full"), atomic_path(tmp_path / "a.pt"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: unexpected pos 64")


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), atomic_path(tmp_path / "a"):
        raise RuntimeError("mine")
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")
    assert names(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"new")
        raise KeyboardInterrupt
    assert (names(tmp_path), path.read_bytes()) == (["a"], b"old")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "a"):
        pass


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == path.parent
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_content_reaches_the_disk_before_the_rename(tmp_path, monkeypatch):
    steps = []
    replace = os.replace
    monkeypatch.setattr(files, "_flush_file", lambda path: steps.append("file"))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    monkeypatch.setattr(files, "_flush_folder", lambda path: steps.append("folder"))
    write_atomically(tmp_path / "a", b"x")
    assert steps == ["file", "rename", "folder"]


@pytest.mark.skipif(os.name != "posix", reason="links and modes of POSIX")
def test_links_and_modes(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    (tmp_path / "plain").write_bytes(b"x")
    write_atomically(tmp_path / "ours", b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1  # as readable by others as any new file
