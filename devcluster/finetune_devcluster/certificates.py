"""Certificates of one cluster: an authority, and one certificate per component.

Every component proves who it is with a certificate of its own, so that the rights seen in a test are those of a real
cluster. All expire with the cluster in mind: nothing here is meant to live longer than `VALIDITY`. Private keys lie in
the cluster's state folder, readable by its owner alone, and must never be printed.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = datetime.timedelta(days=7)
"""Longer than a working week in front of one cluster; a new `up` makes new ones. A guess."""

_CLOCK_SKEW = datetime.timedelta(minutes=5)  # a clock set back by less must not make them invalid


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """The certificate authority of one cluster, with everything it signed in `directory`."""

    directory: Path

    @property
    def key_pair(self) -> KeyPair:
        """The authority's own certificate and key."""
        return _key_pair(self.directory, "ca")

    def issue(self, file_name: str, user: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> KeyPair:
        """Sign a certificate for `user` (a member of `groups`) that serves and calls, and save it.

        Args:
            file_name: Name of the two files, without suffix.
            user: Common name: the Kubernetes user.
            groups: Organizations: the Kubernetes groups.
            hosts: Names and addresses under which it is served; without any it is for clients alone.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        loaded = serialization.load_pem_private_key(self.key_pair.key.read_bytes(), password=None)
        signer = cast("ec.EllipticCurvePrivateKey", loaded)  # the kind create_authority makes
        issuer = x509.load_pem_x509_certificate(self.key_pair.certificate.read_bytes()).subject
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = _builder(_name(user, groups), issuer, key).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return _save(self.directory, file_name, builder.sign(signer, hashes.SHA256()), key)


def create_authority(directory: Path) -> Authority:
    """Make a new authority in `directory`."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("finetune-devcluster", ())
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    _save(directory, "ca", certificate, key)
    return Authority(directory)


def create_signing_key(directory: Path) -> tuple[Path, Path]:
    """Make the key pair that signs service account tokens; return the private and the public key file."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = directory / "service-account.key", directory / "service-account.pub"
    _write_private(private, _pem(key))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def load_expiry(certificate: Path) -> datetime.datetime:
    """Return when `certificate` ends."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
    )


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _save(directory: Path, file_name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    pair = _key_pair(directory, file_name)
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(pair.key, _pem(key))
    return pair


def _key_pair(directory: Path, file_name: str) -> KeyPair:
    return KeyPair(directory / f"{file_name}.crt", directory / f"{file_name}.key")


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
