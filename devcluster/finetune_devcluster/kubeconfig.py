"""Kubeconfig files with everything embedded, so that one file is enough to reach a cluster.

The authority's certificate is always in it: nothing of ours ever talks to an API server it has not verified.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

from finetune_devcluster import certificates


def save_kubeconfig(path: Path, server: str, authority: certificates.Authority, user: certificates.KeyPair) -> Path:
    """Save the configuration with which `user` reaches `server`; readable by the owner alone."""

    def embed(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "devcluster",
        "contexts": [{"name": "devcluster", "context": {"cluster": "devcluster", "user": "user"}}],
        "clusters": [
            {
                "name": "devcluster",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": embed(authority.key_pair.certificate),
                },
            }
        ],
        "users": [
            {
                "name": "user",
                "user": {
                    "client-certificate-data": embed(user.certificate),
                    "client-key-data": embed(user.key),
                },
            }
        ],
    }
    # JSON is YAML: every client reads it, and it needs no library here.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file, indent=1)
    return path
