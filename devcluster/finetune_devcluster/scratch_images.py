"""Images that hold one statically linked program and nothing else, written without any image tool.

The sandbox image and CoreDNS have to be in containerd before anything can be pulled. An image of one file is a tar of
four JSON documents and a layer (OCI image layout, https://github.com/opencontainers/image-spec), so it is made here.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

_MEDIA_TYPE = "application/vnd.oci.image"


def save_image(program: Path, reference: str, archive: Path) -> None:
    """Write `archive`, an image called `reference` that runs `program`."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_blob = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA_TYPE}.manifest.v1+json",
        "config": _descriptor("config.v1+json", config_blob),
        "layers": [_descriptor("layer.v1.tar", layer)],
    }
    manifest_blob = json.dumps(manifest).encode()
    # The annotation under which containerd's import finds the name.
    named = {**_descriptor("manifest.v1+json", manifest_blob), "annotations": {"io.containerd.image.name": reference}}
    index = {"schemaVersion": 2, "manifests": [named]}
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config_blob, manifest_blob)}
    layout = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    archive.write_bytes(_tar({**layout, **blobs}, mode=0o644))


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": f"{_MEDIA_TYPE}.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
