"""Local files that are whole, and are what they should be.

Everything the demo downloads or makes from a download goes through here: written beside its place and then moved
into it, so a reader or a second process sees the old file or the new one, never a part; checked against a pinned
SHA-256 where there is one.

Must never: know where bytes come from.
"""

import hashlib
import io
import shutil
import tempfile
from pathlib import Path
from typing import IO

_CHUNK_BYTES = 1 << 20


class DigestMismatchError(ValueError):
    """The bytes are not the pinned ones: nothing was kept, and trying again does not help."""


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_digest(name: str, path: Path, sha256: str) -> None:
    """Raise DigestMismatchError unless the file has the digest; `name` is what the message calls it."""
    actual = file_digest(path)
    if actual != sha256:
        raise DigestMismatchError(
            f"{name} (sha256 {actual}) must have sha256 {sha256}; its source has changed: correct the pin with care"
        )


def save_bytes(content: bytes, target: Path, sha256: str) -> None:
    """Write pinned bytes to a file, whole or not at all.

    Raises:
        DigestMismatchError: the bytes are not the pinned ones; the file is untouched.
    """
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise DigestMismatchError(
            f"{target.name} (sha256 {actual}) must have sha256 {sha256}; a library makes other rows than the pinned one"
        )
    save_stream(io.BytesIO(content), target)


def save_stream(stream: IO[bytes], target: Path) -> None:
    """Write all that a stream holds to a file, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".write-", delete=False) as written:
        partial = Path(written.name)
        try:
            shutil.copyfileobj(stream, written, _CHUNK_BYTES)
            written.close()
            partial.chmod(0o644)  # temporary files are for their owner alone; uploads run as somebody else
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
