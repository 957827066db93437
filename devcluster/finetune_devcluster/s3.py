"""A real S3 server: SeaweedFS with signed requests, one process.

Started alone on loopback by unit tests (`start_s3`), and inside the network namespace of a cluster by the node level.
Signatures (SigV4), conditional puts, ranges and multipart uploads behave as on the real thing. Only the S3 port is
meant for clients; the master, volume and filer ports answer without credentials and stay on loopback. Must never send
the statistics SeaweedFS reports by default.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import os
import secrets
import signal
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import errors, ports, processes, programs, waiting

ADMIN_ACTIONS = ("Admin", "Read", "List", "Tagging", "Write")
READ_ONLY_ACTIONS = ("Read", "List")
CLUSTER_PORT = 8333
"""The port of the S3 server inside a cluster; SeaweedFS's default."""

_PROCESS_NAME = "s3"
# Measured: 2.4 s to the first writable volume, 2026-11, two cores; the rest is room for a loaded machine.
_START_DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Identity:
    """One user of the S3 server."""

    name: str
    access_key: str
    secret_key: str
    actions: tuple[str, ...]
    """What the user may do: `Admin`, `Read`, `List`, `Tagging`, `Write`, each optionally as `Read:bucket`."""

    def __repr__(self) -> str:
        """Leave the secret out: representations end in logs."""
        return f"Identity(name={self.name!r}, access_key={self.access_key!r}, actions={self.actions!r})"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server whose data and configuration lie in `directory`."""

    directory: Path
    endpoint_url: str
    """The address for clients on this machine."""

    @property
    def access_key(self) -> str:
        """The access key of the administrator."""
        return self.identities()[0].access_key

    @property
    def secret_key(self) -> str:
        """The secret key of the administrator."""
        return self.identities()[0].secret_key

    def identities(self) -> list[Identity]:
        """Return the users, the administrator first."""
        return _load_identities(self.directory)

    def add_identity(self, name: str, actions: Sequence[str]) -> Identity:
        """Add a user with fresh keys and the given `actions`; the server knows it when this returns.

        Raises:
            ValueError: a user of that name is there already.
        """
        identities = self.identities()
        if any(identity.name == name for identity in identities):
            raise ValueError(f"identity ({name}) must not exist yet; choose another name")
        added = _new_identity(name, actions)
        _save_identities(self.directory, [*identities, added])
        for process in processes.ProcessGroup(self.directory).load():
            if process.name == _PROCESS_NAME:
                os.kill(process.pid, signal.SIGHUP)  # SeaweedFS reads its identities again
        waiting.wait_for(f"S3 user {name}", lambda: self._check_known(added), 10.0)
        return added

    def _check_known(self, identity: Identity) -> None:
        # A wrong signature under a known key and an unknown key are refused with different codes.
        credential = f"{identity.access_key}/20200101/us-east-1/s3/aws4_request"
        header = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"
        body = _fetch_error(self.endpoint_url, {"Authorization": header, "X-Amz-Date": "20200101T000000Z"})
        if "InvalidAccessKeyId" in body:
            raise waiting.NotYetError(f"key of {identity.name} unknown to the server")


@contextlib.contextmanager
def start_s3(directory: Path) -> Iterator[S3Server]:
    """Run an S3 server on loopback with free ports and its data in `directory`; stop it at the end. Needs no root."""
    group = processes.ProcessGroup(directory)
    try:
        server = launch(group, "127.0.0.1", ports.choose_ports(1)[0])
        wait_until_ready(server, group)
        yield server
    finally:
        # Killed at once: asked politely it takes 16 s (measured, 2026-11), and nobody reads this data again.
        group.stop(0)
        for path in sockets(directory):
            path.unlink(missing_ok=True)


def launch(group: processes.ProcessGroup, address: str, port: int) -> S3Server:
    """Start the server in `group`, listening for S3 on `address`:`port`, with its data in the folder of `group`."""
    weed = str(programs.find_program("weed"))
    directory = group.directory
    (directory / "data").mkdir(parents=True, exist_ok=True)
    if not (directory / "identities.json").exists():
        _save_identities(directory, [_new_identity("admin", ADMIN_ACTIONS)])
    inner_ports = ports.choose_ports(7)
    (directory / "ports.json").write_text(json.dumps(inner_ports))
    group.start(_PROCESS_NAME, _command(weed, directory, address, port, inner_ports), {"HOME": str(directory)})
    return S3Server(directory, f"http://{address}:{port}")


def wait_until_ready(server: S3Server, group: processes.ProcessGroup) -> None:
    """Wait until the server answers, and on loopback until it can store an object at once."""
    master = json.loads((server.directory / "ports.json").read_text())[0]

    def check() -> None:
        group.check_running(_PROCESS_NAME)
        if "AccessDenied" not in (seen := _fetch_error(server.endpoint_url, {})):
            raise waiting.NotYetError(f"S3 answers {seen or 'nothing'}")
        # A first object put before a volume can take it waits 5 s in the server's own retries (measured, 2026-11).
        if not group.prefix and "error" in _fetch_error(f"http://127.0.0.1:{master}/dir/assign", {}):
            raise waiting.NotYetError("no volume takes objects yet")

    waiting.wait_for(f"S3 server at {server.endpoint_url}", check, _START_DEADLINE_SECONDS)


def load(directory: Path, address: str, port: int) -> S3Server:
    """Return the server that another process started in `directory`."""
    if not (directory / "identities.json").exists():
        raise errors.DevclusterError(f"{directory} (no identities.json) must hold an S3 server; start it again")
    return S3Server(directory, f"http://{address}:{port}")


def sockets(directory: Path) -> list[Path]:
    """Return the sockets SeaweedFS makes under /tmp, whose names cannot be chosen; they bear its port numbers."""
    ports_file = directory / "ports.json"
    used = json.loads(ports_file.read_text()) if ports_file.exists() else []
    folder = Path("/tmp")  # noqa: S108 - chosen by SeaweedFS, which has no option for it
    return [path for port in used for path in folder.glob(f"seaweedfs-*-{port}.sock")]


def _command(weed: str, directory: Path, address: str, port: int, inner_ports: Sequence[int]) -> list[str]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = inner_ports
    return [
        *(weed, "-logtostderr=true", "server", f"-dir={directory / 'data'}", "-master.telemetry=false"),
        *(
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.peers=none",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
        ),
        *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
        *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        *("-s3", f"-s3.ip.bind={address}", f"-s3.port={port}", f"-s3.port.grpc={s3_grpc}"),
        # The default name holds the S3 port, which is the same in every cluster, while /tmp is shared.
        f"-s3.localSocket=/tmp/seaweedfs-s3-{s3_grpc}.sock",
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", f"-s3.config={directory / 'identities.json'}"),
        # Every bucket takes up to seven volumes of its own, which are created empty: room for 140 buckets.
        *("-volume.max=1000", "-master.volumeSizeLimitMB=1024"),
    ]


def _new_identity(name: str, actions: Sequence[str]) -> Identity:
    # The lengths of the keys AWS hands out: 20 and 40 characters.
    return Identity(name, f"AKIA{secrets.token_hex(8).upper()}", secrets.token_hex(20), tuple(actions))


def _load_identities(directory: Path) -> list[Identity]:
    document = json.loads((directory / "identities.json").read_text())
    return [
        Identity(
            entry["name"],
            entry["credentials"][0]["accessKey"],
            entry["credentials"][0]["secretKey"],
            tuple(entry["actions"]),
        )
        for entry in document["identities"]
    ]


def _save_identities(directory: Path, identities: Sequence[Identity]) -> None:
    document = {
        "identities": [
            {
                "name": identity.name,
                "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
                "actions": list(identity.actions),
            }
            for identity in identities
        ]
    }
    # Written aside and renamed: the server must never read half a file.
    draft = directory / "identities.json.new"
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(document))
    draft.rename(directory / "identities.json")


def _fetch_error(url: str, headers: dict[str, str]) -> str:
    """Return the body of the refusal that `url` answers with, empty when it agrees or nothing answers."""
    # Not urllib: that would go through a proxy named in the environment, and this server is on this machine.
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request("GET", parts.path or "/", headers=headers)
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    except OSError:
        return ""
    finally:
        connection.close()
    return body if response.status >= http.HTTPStatus.BAD_REQUEST else ""
