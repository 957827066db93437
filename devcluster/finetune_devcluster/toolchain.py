"""A Go toolchain that is new enough, from whatever Go the machine has.

Debian's stable Go is older than Kubernetes needs and does not fetch newer toolchains by itself. But every toolchain is
published as an ordinary module, so an old Go can download it through the module mirror it is configured for and the
checksum database it trusts. This module names no host and no mirror.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from finetune_devcluster import commands, programs

# The first release that reads `toolchain` lines and fetches what they name (https://go.dev/doc/toolchain).
_FIRST_SELF_UPDATING = (1, 21)

_INSTALLED_FOLDERS = ("/usr/local/go/bin", "/usr/lib/go/bin")


def find_go(wanted: str, *, install: bool) -> Path:
    """Return a `go` command that can build modules asking for `wanted`, such as `go1.26.8`.

    Args:
        install: With root, install Debian's Go when there is none.

    Raises:
        MissingProgramError: there is no Go at all.
        CommandError: the Go that is there is too old and could not download `wanted`.
    """
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), *_INSTALLED_FOLDERS])
    found = shutil.which("go", path=folders)
    if found is None:
        programs.require_programs(["go"], install=install)
        found = str(programs.find_program("go"))
    version = parse_version(commands.run([found, "env", "GOVERSION"]).strip())
    return _download_toolchain(found, wanted) if version < _FIRST_SELF_UPDATING else Path(found)


def parse_version(text: str) -> tuple[int, int]:
    """Parse `go1.26.8` into (1, 26).

    Raises:
        ValueError: `text` is no Go version.
    """
    if not (match := re.match(r"go(\d+)\.(\d+)", text)):
        raise ValueError(f"go version ({text}) must look like go1.26.8; reinstall Go")
    return int(match[1]), int(match[2])


def _download_toolchain(old_go: str, wanted: str) -> Path:
    system, architecture = commands.run([old_go, "env", "GOOS", "GOARCH"]).split()
    module = f"golang.org/toolchain@v0.0.1-{wanted}.{system}-{architecture}"
    # In an empty folder: the old Go could not read our go.mod.
    with tempfile.TemporaryDirectory() as empty:
        answer = commands.run(
            [old_go, "mod", "download", "-json", module],
            environment={"GO111MODULE": "on", "GOFLAGS": ""},
            directory=Path(empty),
        )
    directory = Path(json.loads(answer)["Dir"])
    # Modules are unpacked without the right to execute; Go does the same when it fetches a toolchain by itself.
    for program in [*directory.glob("bin/*"), *directory.glob("pkg/tool/*/*")]:
        program.chmod(0o755)
    return directory / "bin" / "go"
