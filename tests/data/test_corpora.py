"""Corpora: what they hold, how they are parted, and what is said when one cannot be had."""

import errno
import hashlib
import importlib.metadata
import io
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import requests

from llm_from_scratch.data import corpora
from llm_from_scratch.data.corpora import Corpus, Document, load


@pytest.fixture(scope="module")
def sotu():
    return load("sotu")


def numbered(count):
    documents = tuple(Document(text=f"text {i}", title=str(i), year=1900 + i) for i in range(count))
    return Corpus(name="numbered", documents=documents)


def test_sotu_is_the_annual_messages(sotu):
    assert len(sotu) == len(sotu.documents) >= 249
    assert 12_000_000 < len(sotu.text) < 20_000_000
    first = sotu.documents[0]
    assert (first.author, first.year, first.title) == (
        "George Washington",
        1790,
        "George Washington, 1790-01-08",
    )
    assert first.text.startswith("Fellow-Citizens of the Senate and House of Representatives:")
    years = [document.year for document in sotu.documents]
    assert years == sorted(years)
    dates = [document.title.rsplit(", ", 1)[1] for document in sotu.documents]
    assert dates == sorted(dates)  # in 1953 the old president spoke before the new one
    assert max(later - earlier for earlier, later in pairwise(years)) == 2  # some new presidents skip a year
    assert (years[0], years[-1] >= 2026) == (1790, True)
    assert {d.author for d in sotu.between(1861, 1864).documents} == {"Abraham Lincoln"}
    assert "sotu 0." in sotu.source


def test_sotu_does_not_import_pandas():
    code = (
        "import sys; from llm_from_scratch.data.corpora import load; load('sotu'); print(sorted(sys.modules))"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'pandas'" not in modules
    assert "'sotu'" not in modules
    assert "'pooch'" not in modules


def test_text_is_the_documents_with_a_blank_line_between():
    assert numbered(3).text == "text 0\n\ntext 1\n\ntext 2"


def test_repr_says_what_is_inside(sotu):
    assert repr(sotu).startswith("Corpus('sotu': 249 documents, 12,")
    assert repr(sotu).endswith("characters, 1790 to 2026)")
    assert repr(Corpus(name="x", documents=(Document(text="ab", title="t"),))) == (
        "Corpus('x': 1 document, 2 characters)"
    )


def test_every_tenth_document_of_sotu_validates(sotu):
    train, validation = sotu.split(0.9)
    assert validation.documents == sotu.documents[9::10]
    assert set(train.documents) | set(validation.documents) == set(sotu.documents)
    assert not set(train.documents) & set(validation.documents)
    assert sotu.split() == (train, validation)


@pytest.mark.parametrize(
    ("fraction", "validates"),
    [(0.9, [9]), (0.5, [1, 3, 5, 7, 9]), (0.75, [3, 7]), (0.7, [3, 6, 9]), (1 / 3, [1, 2, 4, 5, 7, 8])],
)
def test_the_share_of_documents(fraction, validates):
    train, validation = numbered(10).split(fraction)
    titles = [int(document.title) for document in validation.documents]
    assert titles == validates
    assert len(train) + len(validation) == 10


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1"):
        numbered(10).split(fraction)


@pytest.mark.parametrize(
    "corpus", [numbered(0), numbered(9), Corpus(name="e", documents=numbered(1).documents)]
)
def test_a_split_with_an_empty_part_is_refused(corpus):
    with pytest.raises(ValueError, match=r"one part of .* empty"):
        corpus.split(0.9 if len(corpus) != 1 else 0.01)


def test_years_without_documents_are_refused(sotu):
    with pytest.raises(ValueError, match="no document from 1700 to 1789"):
        sotu.between(1700, 1789)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match=r"'brown'.*'sotu', 'tiny_shakespeare'"):
        load("brown")


def test_a_missing_or_altered_sotu_says_how_to_mend_it(monkeypatch, tmp_path):
    package = importlib.metadata.distribution("sotu")
    shutil.copytree(str(package.locate_file("sotu")), tmp_path / "sotu")

    class Elsewhere:
        version = "0"

        def locate_file(self, name):
            return tmp_path / name

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Elsewhere())
    assert len(load("sotu")) == 249
    speech = tmp_path / "sotu" / "data" / "speeches" / "1861-Lincoln-1.txt"
    speech.write_bytes(speech.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"1861-Lincoln-1.*altered; install it again"):
        load("sotu")
    speech.unlink()
    with pytest.raises(FileNotFoundError, match=r"1861-Lincoln-1\.txt; install it again"):
        load("sotu")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match="missing; install it again"):
        load("sotu")


def test_tiny_shakespeare_from_a_folder(shared_data):
    corpus = load("tiny_shakespeare")
    train, validation = corpus.split()
    assert (len(corpus.text), len(train.text), len(validation.text)) == (1_115_394, 1_003_854, 111_540)
    assert train.text + validation.text == corpus.text
    assert corpus.text.startswith("First Citizen:\nBefore we proceed any further")


class FakeWeb:
    """Stands in for the web: answers every request with ``content``."""

    def __init__(self, content):
        self.content = content
        self.addresses = []

    def get(self, url, **kwargs):
        self.addresses.append(url)
        if isinstance(self.content, Exception):
            raise self.content
        response = requests.Response()
        response.status_code = 200
        response.raw = io.BytesIO(self.content)
        response.headers["content-length"] = str(len(self.content))
        return response


@pytest.fixture
def web(monkeypatch):
    fake = FakeWeb(b"To be, or not to be\n")
    monkeypatch.setattr(requests, "get", fake.get)
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", hashlib.sha256(fake.content).hexdigest())
    return fake


def test_it_is_downloaded_once_with_a_progress_bar(web, capsys):
    assert load("tiny_shakespeare").text == "To be, or not to be\n"
    assert "100%" in capsys.readouterr().err
    load("tiny_shakespeare")
    assert len(web.addresses) == 1
    assert web.addresses[0].endswith("/data/tinyshakespeare/input.txt")


def test_a_damaged_copy_in_the_cache_is_fetched_again(web, no_folders_of_the_user):
    load("tiny_shakespeare")
    stored = no_folders_of_the_user / "llm_from_scratch" / corpora.SHAKESPEARE_FILE
    stored.write_bytes(b"To be, or")
    assert load("tiny_shakespeare").text == "To be, or not to be\n"
    assert len(web.addresses) == 2


def test_another_file_than_the_expected_is_not_kept(web, no_folders_of_the_user):
    web.content = b"<html>Log in to the hotel's network</html>"
    with pytest.raises(ValueError, match=r"another file.*LLM_FROM_SCRATCH_DATA"):
        load("tiny_shakespeare")
    assert [path for path in no_folders_of_the_user.rglob("*") if path.is_file()] == []


def test_no_network_says_what_to_do(web, no_folders_of_the_user):
    web.content = requests.exceptions.ConnectionError("no route")
    with pytest.raises(ConnectionError, match=r"Check the network.*LLM_FROM_SCRATCH_DATA") as caught:
        load("tiny_shakespeare")
    assert caught.value.__suppress_context__  # one message, not forty lines of other people's traces
    assert [path for path in no_folders_of_the_user.rglob("*") if path.is_file()] == []


def test_a_full_disk_says_so(web, no_folders_of_the_user, monkeypatch):
    web.content = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="could not be stored: No space left") as caught:
        load("tiny_shakespeare")
    assert caught.value.errno == errno.ENOSPC
    assert [path for path in no_folders_of_the_user.rglob("*") if path.is_file()] == []


def test_the_folder_of_the_reader_comes_first_and_is_checked(web, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_FROM_SCRATCH_DATA", str(tmp_path))
    (tmp_path / corpora.SHAKESPEARE_FILE).write_bytes(web.content)
    assert load("tiny_shakespeare").text == "To be, or not to be\n"
    assert web.addresses == []
    (tmp_path / corpora.SHAKESPEARE_FILE).write_bytes(b"To be, or not to be\r\n")
    with pytest.raises(ValueError, match=r"not the expected file.*Replace it"):
        load("tiny_shakespeare")
    (tmp_path / corpora.SHAKESPEARE_FILE).unlink()
    load("tiny_shakespeare")
    assert len(web.addresses) == 1
    monkeypatch.setenv("LLM_FROM_SCRATCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*not a folder"):
        load("tiny_shakespeare")


def test_the_hash_in_the_source_is_of_the_real_file(shared_data):
    content = Path(shared_data, corpora.SHAKESPEARE_FILE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == corpora.SHAKESPEARE_SHA256
