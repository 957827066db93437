"""The Go programs of a cluster: built once, found again by a digest of what they are built from.

One `go build` of the module in `devcluster/binaries` makes four files: `kubernetes` (seven programs, chosen by the name
it is called by), `coredns`, `pause` and `helm`. They share most of their packages, so they share one build. A change of
the module, of the flags or of the Go release gives another digest and thus another folder; the two newest are kept.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from finetune_devcluster import cache, commands, progress, toolchain

KUBERNETES_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
SOURCE_DIRECTORY = Path(__file__).parent.parent / "binaries"

_PACKAGES = (".", "./pause", "./coredns", "helm.sh/helm/v4/cmd/helm")
_KEPT_BUILDS = 2  # the current one and, while a change is tried, the one before; 260 MB each


def build(steps: progress.Steps, *, install: bool = False) -> Path:
    """Return the folder with all programs, building them when no build of these inputs is there.

    Args:
        steps: Where a build is shown; a found one is not.
        install: With root, install Go when it is missing.

    Raises:
        MissingProgramError: there is no build of these inputs and no Go to make it.
        CommandError: the build failed.
    """
    built = cache.cache_directory() / "binaries" / _digest_of_inputs()
    if not built.is_dir():
        built.parent.mkdir(parents=True, exist_ok=True)
        # The step includes the wait for another process that builds the same.
        with (
            steps.step("build the Kubernetes programs (once, about five minutes on two cores)"),
            cache.locked("binaries"),
        ):
            if not built.is_dir():
                _build_into(built, toolchain.find_go(_pinned("toolchain"), install=install))
                _prune(built.parent, keep=built)
    os.utime(built)
    return built


def _digest_of_inputs() -> str:
    sources = sorted(path for path in SOURCE_DIRECTORY.rglob("*") if path.suffix in {".go", ".mod", ".sum"})
    named = (part for path in sources for part in (str(path.relative_to(SOURCE_DIRECTORY)).encode(), path.read_bytes()))
    # The Go release counts too: it is pinned in go.mod, by the line `toolchain`.
    return cache.digest_of([*named, " ".join([*_PACKAGES, *_flags()]).encode(), os.uname().machine.encode()])


def _pinned(module: str) -> str:
    match = re.search(rf"^\s*{re.escape(module)} (\S+)", (SOURCE_DIRECTORY / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{SOURCE_DIRECTORY / 'go.mod'} must pin {module}; add a line with its version")
    return match[1]


def _flags() -> list[str]:
    kubernetes, helm = _pinned("k8s.io/kubernetes"), _pinned("helm.sh/helm/v4")
    major, minor, _ = kubernetes.removeprefix("v").split(".")
    stamps = {
        # Without them the API server calls itself v0.0.0-master, and clients that compare versions refuse it.
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "helm.sh/helm/v4/internal/version.version": helm,
    }
    return [
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())]),
    ]


def _build_into(built: Path, go: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=".building-", dir=built.parent))
    try:
        # No C: it needs no compiler, and coredns and pause run in images that hold nothing else.
        environment = {"CGO_ENABLED": "0", "GOFLAGS": ""}
        command = [str(go), "build", *_flags(), "-o", f"{draft}/", *_PACKAGES]
        commands.run(command, environment=environment, directory=SOURCE_DIRECTORY)
        for name in KUBERNETES_PROGRAMS:
            (draft / name).symlink_to("kubernetes")
        draft.chmod(0o755)
        draft.rename(built)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _prune(builds: Path, keep: Path) -> None:
    others = [path for path in builds.iterdir() if path != keep]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_BUILDS - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
