"""Preparing data: round trip, every interruption, every kind of source, and what is refused."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_from_scratch import files
from llm_from_scratch.data import prepare as module
from llm_from_scratch.data import shard_writer
from llm_from_scratch.data.prepare import Preparation, prepare
from llm_from_scratch.data.shards import open_folder, read_json
from llm_from_scratch.data.sources import Reading, find_sources, read_documents
from llm_from_scratch.tokenizers import BytePairTokenizer, CharacterTokenizer
from tests.data.prepared import END, SETTINGS, TEXTS, content, tiny_tokenizer, write_jsonl


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def source(tmp_path):
    return write_jsonl(tmp_path / "texts.jsonl")


def run(source, tokenizer, out, settings=SETTINGS, workers=1, **more):
    return prepare([source], tokenizer=tokenizer, out=out, settings=settings, workers=workers, **more)


def texts_of(folder, tokenizer, split):
    shards = folder.tokens(split)
    ids = shards.window(0, len(shards))
    pieces = np.split(ids, np.flatnonzero(ids == folder.end_of_text) + 1)[:-1]
    return [tokenizer.decode(piece[:-1].tolist()) for piece in pieces]


def test_round_trip(source, tokenizer, tmp_path):
    index = run(source, tokenizer, tmp_path / "out")
    folder = open_folder(tmp_path / "out")
    folder.verify()
    assert index["documents"] == len(TEXTS)
    assert texts_of(folder, tokenizer, "validation") == TEXTS[::10]
    assert texts_of(folder, tokenizer, "train") == [t for i, t in enumerate(TEXTS) if i % 10]
    assert folder.text_bytes("validation") == sum(len(text.encode()) for text in TEXTS[::10])
    shards = index["splits"]["train"]["shards"]
    assert [shard["tokens"] for shard in shards[:-1]] == [500] * (len(shards) - 1)
    assert len(shards) > 3
    assert 0 < shards[-1]["tokens"] <= 500
    assert index["dtype"] == "uint16"


def test_boundaries_are_where_documents_begin(source, tokenizer, tmp_path):
    index = run(source, tokenizer, tmp_path / "out")
    begun = 0
    previous = index["end_of_text"]
    for shard in index["splits"]["train"]["shards"]:
        sidecar = json.loads((tmp_path / "out" / shard["file"]).with_suffix(".json").read_bytes())
        ids = np.fromfile(tmp_path / "out" / shard["file"], dtype="<u2")
        before = np.concatenate([[previous], ids[:-1]])
        assert np.flatnonzero(before == index["end_of_text"]).tolist() == sidecar["document_starts"]
        assert len(sidecar["document_starts"]) == shard["documents"]
        previous, begun = ids[-1], begun + shard["documents"]
    assert begun == index["splits"]["train"]["documents"] == 54


def test_several_processes_write_the_same_bytes(source, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 700)
    run(source, tokenizer, tmp_path / "one", workers=1)
    run(source, tokenizer, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize("after", range(1, 12))
def test_resumed_equals_uninterrupted(source, tokenizer, tmp_path, monkeypatch, after):
    run(source, tokenizer, tmp_path / "whole")
    real, writes = shard_writer.write_atomically, 0

    def interrupted(path, data):
        nonlocal writes
        writes += 1
        if writes > after:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(shard_writer, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source, tokenizer, tmp_path / "resumed")
    with pytest.raises(FileNotFoundError, match="is not finished: run the same"):
        open_folder(tmp_path / "resumed")
    monkeypatch.setattr(shard_writer, "write_atomically", real)
    said = []
    run(source, tokenizer, tmp_path / "resumed", say=said.append)
    assert content(tmp_path / "resumed") == content(tmp_path / "whole")
    if after >= 2:
        assert said[0] == f"{after // 2} finished shards are whole and kept"


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle(source, tokenizer, tmp_path, workers):
    tokenizer.save(tmp_path / "tokenizer.json")
    run(source, tokenizer, tmp_path / "whole")
    command = [sys.executable, "-m", "tests.data.prepared", source, str(tmp_path / "tokenizer.json")]
    process = subprocess.Popen(
        [*command, str(tmp_path / "killed"), str(workers)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(5):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.communicate()  # returns once the processes that encode, which hold the pipe too, have ended
    assert process.returncode != 0
    assert not (tmp_path / "killed" / "index.json").exists()
    run(source, tokenizer, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_finished_shards_are_not_made_again_and_damaged_ones_are(source, tokenizer, tmp_path):
    run(source, tokenizer, tmp_path / "out")
    before = content(tmp_path / "out")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.bin")}
    run(source, tokenizer, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    damaged = tmp_path / "out" / "train_00002.bin"
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"\x07\x00")
    (tmp_path / "out" / "train_00003.bin").unlink()
    run(source, tokenizer, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_vocabulary_beyond_16_bits_takes_32(source, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(BytePairTokenizer, "vocab_size", 70_000)
    index = run(source, tokenizer, tmp_path / "out")
    assert index["dtype"] == "uint32"
    monkeypatch.undo()
    assert texts_of(open_folder(tmp_path / "out"), tokenizer, "validation") == TEXTS[::10]


def documents(*names, **reading):
    return list(read_documents(find_sources([str(name) for name in names]), Reading(**reading)))


def test_plain_text_and_compressed_files_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text(f"one\nmore\n{END}\ntwo\n", encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"body": "three"}\n\n{"body": ""}\n'))
    assert documents(tmp_path / "a.txt") == ["one\nmore\n", "two\n"]
    assert documents(tmp_path, field="body") == ["one\nmore\n", "two\n", "three"]
    assert [source.name for source in find_sources([str(tmp_path)])] == [
        str(tmp_path / "a.txt"),
        str(tmp_path / "b.jsonl.gz"),
    ]


def test_a_dataset_of_the_hub_is_streamed(tokenizer, tmp_path, monkeypatch):
    asked = {}

    def load_dataset(name, subset, **more):
        asked.update(more, name=name, subset=subset)
        return ({"text": text, "id": i} for i, text in enumerate(TEXTS))

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    settings = replace(SETTINGS, reading=Reading(subset="sample", split="test"))
    run("hf:someone/texts", tokenizer, tmp_path / "hub", settings)
    assert asked == {"name": "someone/texts", "subset": "sample", "split": "test", "streaming": True}
    run(write_jsonl(tmp_path / "t.jsonl"), tokenizer, tmp_path / "file")
    for name, data in content(tmp_path / "file").items():
        if name.endswith(".bin"):
            assert (tmp_path / "hub" / name).read_bytes() == data


class FakeParquetFile:
    """As much of pyarrow.parquet.ParquetFile as is called."""

    def __init__(self, path):
        if not Path(path).read_bytes().startswith(b"PAR1"):
            raise ValueError("Parquet magic bytes not found in footer")
        self.schema_arrow = types.SimpleNamespace(names=["id", "text"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def iter_batches(self, *, batch_size, columns):
        assert columns == ["text"]
        for batch in (["one", "two"], ["three", None]):
            column = types.SimpleNamespace(to_pylist=lambda batch=batch: batch)
            yield types.SimpleNamespace(column=lambda i, column=column: column)


def test_parquet_by_a_stand_in(tmp_path, monkeypatch):
    parquet = types.ModuleType("pyarrow.parquet")
    parquet.ParquetFile = FakeParquetFile
    arrow = types.ModuleType("pyarrow")
    arrow.ArrowInvalid, arrow.parquet = ValueError, parquet
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1")
    read = read_documents(find_sources([str(path)]), Reading())
    assert [next(read) for _ in range(3)] == ["one", "two", "three"]
    with pytest.raises(ValueError, match=r"x.parquet, row 4: the field 'text' holds NoneType, expected text"):
        next(read)
    with pytest.raises(ValueError, match=r"there is no field 'body'; it has 'id', 'text'"):
        documents(path, field="body")
    path.write_bytes(b"what")
    with pytest.raises(ValueError, match=r"x.parquet: not a whole Parquet file"):
        documents(path)


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"id": list(range(60)), "text": TEXTS}), tmp_path / "x.parquet")
    assert documents(tmp_path / "x.parquet") == TEXTS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "a"}\n{"text": \n', r"bad.jsonl, line 2: not JSON"),
        (b'{"text": "a"}\n[1]\n', r"bad.jsonl, line 2: holds a JSON list, expected an object"),
        (b'{"body": "a"}\n', r"bad.jsonl, line 1: there is no field 'text'; it has 'body'.*--field"),
        (b'{"text": 3}\n', r"bad.jsonl, line 1: the field 'text' holds int, expected text"),
        (b'{"text": "a"}\n\n{"text": "\xff"}\n', r"bad.jsonl, line 3: not UTF-8"),
        (b"", r"there is no text in .*bad.jsonl"),
        (b'{"text": ""}\n', r"there is no text in .*bad.jsonl"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_is_named_by_file_and_line(tokenizer, tmp_path, content, says, workers):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        run(str(tmp_path / "bad.jsonl"), tokenizer, tmp_path / "out", workers=workers)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder 'c4'.* is named hf:c4"):
        find_sources(["c4"])
    (tmp_path / "x.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x.pdf is no .jsonl"):
        find_sources([str(tmp_path / "x.pdf")])
    with pytest.raises(ValueError, match="holds no"):
        find_sources([str(tmp_path)])
    with pytest.raises(ValueError, match="at least one source"):
        find_sources([])
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"words " * 999)[:-9])
    with pytest.raises(ValueError, match=r"cut.txt.gz, after line 0: the compressed file is damaged"):
        documents(tmp_path / "cut.txt.gz")


def test_a_folder_of_other_data_is_refused(source, tokenizer, tmp_path):
    run(source, tokenizer, tmp_path / "out")
    other = BytePairTokenizer.train(TEXTS[:5], vocab_size=290, special_tokens=[END])
    with pytest.raises(ValueError, match="begun with another tokenizer"):
        run(source, other, tmp_path / "out")
    with pytest.raises(ValueError, match="begun with shard_tokens 500, now it is 501"):
        run(source, tokenizer, tmp_path / "out", replace(SETTINGS, shard_tokens=501))
    write_jsonl(Path(source), [*TEXTS, "more"])
    with pytest.raises(ValueError, match="begun with sources"):
        run(source, tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no token '<\|endoftext\|>'"):
        run(source, CharacterTokenizer.train("abc"), tmp_path / "characters")
    with pytest.raises(ValueError, match="validation is a share"):
        Preparation(validation=0.9)
    with pytest.raises(ValueError, match="shard_tokens must be 1"):
        Preparation(shard_tokens=0)


def test_two_at_once_are_refused(source, tokenizer, tmp_path):
    (tmp_path / "out").mkdir()
    with module.FileLock(tmp_path / "out" / ".lock"), pytest.raises(ValueError, match="another process"):
        run(source, tokenizer, tmp_path / "out")


def test_a_full_disk_leaves_whole_shards_and_a_resumable_folder(source, tokenizer, tmp_path, monkeypatch):
    real, flushed = files._flush_file, 0

    def full(path):
        nonlocal flushed
        flushed += 1
        if flushed > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(files, "_flush_file", full)
    with pytest.raises(OSError, match="the disk is full"):
        run(source, tokenizer, tmp_path / "out")
    monkeypatch.setattr(files, "_flush_file", real)
    assert not list((tmp_path / "out").glob("*.tmp"))
    run(source, tokenizer, tmp_path / "out")
    run(source, tokenizer, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), r"the shard .*train_00001.bin is missing"),
        (
            lambda path: path.write_bytes(b"\x00"),
            r"train_00001.bin is damaged: it has 1 bytes, expected 1000",
        ),
        (lambda path: path.write_bytes(bytes(1000)), r"train_00001.bin is damaged: its sha256"),
    ],
)
def test_a_damaged_shard_is_refused_by_name(source, tokenizer, tmp_path, damage, says):
    run(source, tokenizer, tmp_path / "out")
    damage(tmp_path / "out" / "train_00001.bin")
    with pytest.raises(ValueError, match=says):
        open_folder(tmp_path / "out").verify()


def test_folders_that_cannot_be_read(source, tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no prepared tokens"):
        open_folder(tmp_path)
    run(source, tokenizer, tmp_path / "out", replace(SETTINGS, validation=0))
    with pytest.raises(ValueError, match="has no validation tokens"):
        open_folder(tmp_path / "out").tokens("validation")
    with pytest.raises(ValueError, match="another tokenizer than that of the run"):
        open_folder(tmp_path / "out", tokenizer_sha256="0" * 64)
    other = BytePairTokenizer.train(TEXTS[:5], vocab_size=290, special_tokens=[END])
    other.save(tmp_path / "out" / "tokenizer.json")
    with pytest.raises(ValueError, match="were made with another tokenizer"):
        open_folder(tmp_path / "out")
    (tmp_path / "out" / "index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index.json is damaged: not JSON"):
        open_folder(tmp_path / "out")
    (tmp_path / "out" / "index.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"index.json is damaged: it lacks dtype"):
        read_json(tmp_path / "out" / "index.json", {"format", "dtype"})
