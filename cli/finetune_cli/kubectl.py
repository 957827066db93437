"""The cluster as `kubectl` reaches it: with the user's own contexts, log-ins and proxies, which aren't ours to read.

A command of the user's, not a library: whoever has a FineTuneJob in a cluster has it, and it knows every way to log in.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from finetune_api import group, wording

_REQUEST_SECONDS = 30
RESOURCE = f"{group.PLURAL}.{group.GROUP}"


class KubectlError(Exception):
    """The cluster can't be asked, or refuses; the message says why."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One cluster and namespace; empty: those of the user's kubeconfig."""

    namespace: str = ""
    context: str = ""

    def get_job(self, name: str) -> dict[str, Any]:
        """Read a FineTuneJob.

        Raises:
            KubectlError: it isn't there, or can't be read.
        """
        found = json.loads(self._run("get", RESOURCE, name, "--output=json"))
        return dict(found)

    def annotate_job(self, name: str, annotation: str, value: str) -> None:
        """Set an annotation of a FineTuneJob.

        Raises:
            KubectlError: it may not be written.
        """
        self._run("annotate", RESOURCE, name, f"{annotation}={value}", "--overwrite")

    def _run(self, verb: str, *arguments: str) -> str:
        program = shutil.which("kubectl")
        if program is None:
            raise KubectlError("kubectl must be on the PATH; install it: https://kubernetes.io/docs/tasks/tools/")
        options = [f"--request-timeout={_REQUEST_SECONDS}s"]
        options += [f"--namespace={self.namespace}"] if self.namespace else []
        options += [f"--context={self.context}"] if self.context else []
        command = [program, verb, *options, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * _REQUEST_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"kubectl {verb} gave no answer for {2 * _REQUEST_SECONDS} s") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise KubectlError(f"kubectl {verb}: {wording.escape_controls(lines[-1])}")
        return done.stdout
