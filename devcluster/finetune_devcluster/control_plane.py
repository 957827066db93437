"""etcd, API server, controller manager and scheduler of one cluster.

The same four programs at both levels: on loopback with free ports for tests without root, and inside the network
namespace of a node-level cluster. Admission works as on a usual cluster, with the two plugins a careful administrator
adds: a controller that lacks a right must fail here too, and not only at a customer's.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import api_client, certificates, kubeconfig, network, ports, processes, waiting

_ISSUER = "https://kubernetes.default.svc.cluster.local"
_GO_SETTINGS = {"GOGC": "400", "GOMEMLIMIT": "3GiB"}
"""Go collects its garbage less often: by default that takes a sixth of the API server's processor time under load
(measured, 2026, 270 requests a second), and everything else shares its few cores."""
# Measured: 2 s on an idle machine with two cores, 2026-11; the rest is room for a loaded one.
_READY_DEADLINE_SECONDS = 90.0


@dataclass(frozen=True)
class Addresses:
    """Where one control plane listens."""

    bind: str
    """Address the API server binds to."""
    host: str
    """Address under which clients on this machine reach it."""
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    service_cidr: str
    service_address: str
    """First address of `service_cidr`: the Service `kubernetes`."""
    is_advertised: bool
    """Whether pods reach the API server through the Service `kubernetes`; impossible on loopback."""

    @property
    def api_url(self) -> str:
        """The URL of the API server."""
        return f"https://{self.host}:{self.api_port}"


def start(directory: Path, binaries: Path, group: processes.ProcessGroup, addresses: Addresses) -> Path:
    """Start the four programs, wait until they work, and return the administrator's kubeconfig."""
    authority = certificates.create_authority(directory / "pki")
    group.start("etcd", _etcd_command(directory, binaries, authority, addresses), _GO_SETTINGS)
    group.start("kube-apiserver", _api_server_command(binaries, authority, addresses), _GO_SETTINGS)

    def config_of(program: str, user: str, *groups: str) -> Path:
        pair = authority.issue(program, user, groups=groups)
        return kubeconfig.save_kubeconfig(directory / f"{program}.kubeconfig", addresses.api_url, authority, pair)

    admin = authority.issue("admin", "devcluster-admin", groups=["system:masters"])
    admin_config = kubeconfig.save_kubeconfig(directory / "kubeconfig", addresses.api_url, authority, admin)
    controllers = config_of("kube-controller-manager", "system:kube-controller-manager")
    scheduler = config_of("kube-scheduler", "system:kube-scheduler")
    waiting.wait_for("API server", lambda: _check_ready(group, directory, addresses.api_url), _READY_DEADLINE_SECONDS)
    group.start("kube-controller-manager", _controller_manager_command(binaries, authority, controllers), _GO_SETTINGS)
    group.start(
        "kube-scheduler",
        [str(binaries / "kube-scheduler"), f"--kubeconfig={scheduler}", "--leader-elect=false", "--secure-port=0"],
        _GO_SETTINGS,
    )
    waiting.wait_for("controllers", lambda: _check_controllers(group, admin_config), _READY_DEADLINE_SECONDS)
    return admin_config


def loopback_addresses() -> Addresses:
    """Return free addresses for a control plane without a node."""
    api_port, etcd_port, etcd_peer_port = ports.choose_ports(3)
    return Addresses(
        bind="127.0.0.1",
        host="127.0.0.1",
        api_port=api_port,
        etcd_port=etcd_port,
        etcd_peer_port=etcd_peer_port,
        # Nobody routes it: Services have addresses here, but no node answers on them.
        service_cidr="10.96.0.0/24",
        service_address="10.96.0.1",
        is_advertised=False,
    )


def node_addresses(net: network.Network) -> Addresses:
    """Return the addresses of a control plane beside its node, on the ports kubeadm takes."""
    return Addresses(
        # Loopback and the pair; pods come through the Service `kubernetes`.
        bind="0.0.0.0",  # noqa: S104 - inside a network of its own, with no way out of this machine
        host=net.node_address,
        api_port=6443,
        etcd_port=2379,
        etcd_peer_port=2380,
        service_cidr=net.service_cidr,
        service_address=net.api_service_address,
        is_advertised=True,
    )


def is_ready(directory: Path, api_url: str) -> bool:
    """Tell whether the API server of the cluster in `directory` says it is ready."""
    return _fetch_readiness(directory, api_url) == "ok"


def _etcd_command(
    directory: Path, binaries: Path, authority: certificates.Authority, addresses: Addresses
) -> list[str]:
    pair = authority.issue("etcd", "etcd", hosts=["127.0.0.1"])
    trusted = authority.key_pair.certificate
    client, peer = f"https://127.0.0.1:{addresses.etcd_port}", f"https://127.0.0.1:{addresses.etcd_peer_port}"
    return [
        *(str(binaries / "etcd"), "--name=devcluster", f"--data-dir={directory / 'etcd'}", "--log-level=warn"),
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
        f"--initial-cluster=devcluster={peer}",
        *(f"--cert-file={pair.certificate}", f"--key-file={pair.key}", f"--trusted-ca-file={trusted}"),
        *(f"--peer-cert-file={pair.certificate}", f"--peer-key-file={pair.key}", f"--peer-trusted-ca-file={trusted}"),
        *("--client-cert-auth", "--peer-client-cert-auth"),
        # The data is thrown away with the cluster: no need to survive a power cut.
        "--unsafe-no-fsync",
    ]


def _api_server_command(binaries: Path, authority: certificates.Authority, addresses: Addresses) -> list[str]:
    names = ["kubernetes", *(f"kubernetes.default{suffix}" for suffix in ("", ".svc", ".svc.cluster.local"))]
    hosts = ["localhost", "127.0.0.1", addresses.service_address, *names]
    serving = authority.issue("kube-apiserver", "kube-apiserver", hosts=list(dict.fromkeys([*hosts, addresses.host])))
    etcd = authority.issue("kube-apiserver-etcd", "kube-apiserver")
    kubelet = authority.issue("kube-apiserver-kubelet", "kube-apiserver", groups=["system:masters"])
    private, public = certificates.create_signing_key(authority.directory)
    trusted = authority.key_pair.certificate
    return [
        *(str(binaries / "kube-apiserver"), f"--bind-address={addresses.bind}", f"--secure-port={addresses.api_port}"),
        *(f"--advertise-address={addresses.host}", f"--service-cluster-ip-range={addresses.service_cidr}"),
        *([] if addresses.is_advertised else ["--endpoint-reconciler-type=none"]),
        *(f"--tls-cert-file={serving.certificate}", f"--tls-private-key-file={serving.key}"),
        f"--client-ca-file={trusted}",
        *(f"--etcd-servers=https://127.0.0.1:{addresses.etcd_port}", f"--etcd-cafile={trusted}"),
        *(f"--etcd-certfile={etcd.certificate}", f"--etcd-keyfile={etcd.key}"),
        *(f"--kubelet-client-certificate={kubelet.certificate}", f"--kubelet-client-key={kubelet.key}"),
        *(f"--kubelet-certificate-authority={trusted}", "--kubelet-preferred-address-types=InternalIP"),
        *(f"--service-account-issuer={_ISSUER}", f"--service-account-key-file={public}"),
        f"--service-account-signing-key-file={private}",
        *("--authorization-mode=Node,RBAC", "--allow-privileged=true", "--profiling=false"),
        # On top of the default ones, among them PodSecurity, ResourceQuota and ValidatingAdmissionPolicy.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
    ]


def _controller_manager_command(binaries: Path, authority: certificates.Authority, config: Path) -> list[str]:
    pair = authority.key_pair
    return [
        *(str(binaries / "kube-controller-manager"), f"--kubeconfig={config}", "--leader-elect=false"),
        *("--secure-port=0", "--use-service-account-credentials", f"--root-ca-file={pair.certificate}"),
        # Its forty controllers each make an account first: at the default 20 requests a second that takes 5 s.
        *("--kube-api-qps=200", "--kube-api-burst=400"),
        f"--service-account-private-key-file={authority.directory / 'service-account.key'}",
        *(f"--cluster-signing-cert-file={pair.certificate}", f"--cluster-signing-key-file={pair.key}"),
    ]


def _check_ready(group: processes.ProcessGroup, directory: Path, api_url: str) -> None:
    group.check_running("etcd")
    group.check_running("kube-apiserver")
    if (seen := _fetch_readiness(directory, api_url)) != "ok":
        raise waiting.NotYetError(seen)


def _check_controllers(group: processes.ProcessGroup, admin_config: Path) -> None:
    group.check_running("kube-controller-manager")
    group.check_running("kube-scheduler")
    # The controller manager makes it as one of its first acts; without it no pod can be created.
    if not api_client.has_default_service_account(admin_config, "default"):
        raise waiting.NotYetError("no default service account")


def _fetch_readiness(directory: Path, api_url: str) -> str:
    pki = directory / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connection = http.client.HTTPSConnection(urllib.parse.urlsplit(api_url).netloc, timeout=5, context=context)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
