"""The connection to a store: where it goes, who is trusted, with which keys, and what is said when that can't work."""

import contextlib
import datetime
import json
import signal
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Fault, FaultProxy, start_fault_proxy
from prepare_bench import PrepareBench, make_entry

from finetune_api.artifacts import S3Address
from finetune_api.errors import AccessDenied, ConfigError, FineTuneError, Interrupted, StorageUnavailable
from finetune_api.kinds.storage import AddressingStyle, Storage
from finetune_devcluster import certificates
from finetune_trainer import signals
from finetune_trainer.storage import bucket, open_store
from finetune_trainer.storage.connection import Connection

# Where requests go.

PLACES = [
    ({}, "path", "bench", "https://s3.us-east-1.amazonaws.com/bench"),
    ({}, "virtual", "bench", "https://bench.s3.us-east-1.amazonaws.com"),
    ({"region": "eu-central-1"}, "virtual", "bench", "https://bench.s3.eu-central-1.amazonaws.com"),
    ({"region": "cn-north-1"}, "virtual", "bench", "https://bench.s3.cn-north-1.amazonaws.com.cn"),
    ({"region": "eu-central-1"}, "virtual", "a.b", "https://s3.eu-central-1.amazonaws.com/a.b"),
    ({"endpointURL": "http://s3:8333"}, "virtual", "bench", "http://bench.s3:8333"),
    ({"endpointURL": "http://s3:8333"}, "path", "bench", "http://s3:8333/bench"),
    ({"endpointURL": "https://s3.example.com/"}, "path", "bench", "https://s3.example.com/bench"),
]


@pytest.mark.parametrize(("storage", "style", "name", "want"), PLACES)
def test_large_bodies_go_where_boto_would_send_them(
    bench: PrepareBench, storage: dict[str, str], style: str, name: str, want: str
) -> None:
    connection = Connection(Storage.model_validate(storage | {"addressingStyle": style}))
    place = bucket.locate_bucket(connection.client, name)
    assert place == bucket.Bucket(name, want, storage.get("region", "us-east-1"))


def test_a_bucket_in_front_of_the_host_is_asked_for_there(bench: PrepareBench, fault_proxy: FaultProxy) -> None:
    know_hosts(bench.monkeypatch, "bench.localhost", "localhost")
    bench.endpoint_url = fault_proxy.endpoint_url.replace("127.0.0.1", "localhost")
    bench.style = AddressingStyle.VIRTUAL
    fault_proxy.faults.append(Fault("PUT", status=403, code="AccessDenied"))
    with pytest.raises(AccessDenied, match=r"\(http://bench\.localhost:\d+ answered 403 AccessDenied"):
        open_store(bench.storage).put_bytes(bench.address("a"), b"x")
    ((_, path, headers),) = fault_proxy.requests
    assert (path, headers["Host"].partition(":")[0]) == (f"/{bench.folder}a", "bench.localhost")


def know_hosts(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have loopback stand for some names, and no other name be known."""

    def resolve(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        if host not in ("127.0.0.1", *names):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port or 0)))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_store_without_a_host_for_each_bucket_is_named_with_the_field_to_set(
    bench: PrepareBench, fault_proxy: FaultProxy
) -> None:
    know_hosts(bench.monkeypatch, "s3")
    endpoint = fault_proxy.endpoint_url.replace("127.0.0.1", "s3")
    with pytest.raises(ConfigError) as caught:
        open_store(Storage(endpoint_url=endpoint)).list_files(S3Address("bench", "a"))
    assert caught.value.message == (
        f"s3://bench must be served by {endpoint.replace('s3:', 'bench.s3:')}, and no such host is known; {endpoint} is"
    )
    assert "spec.storage.addressingStyle: path" in caught.value.remedy
    assert fault_proxy.requests == []


STYLE_ANSWERS = [
    (404, "NoSuchBucket", AddressingStyle.VIRTUAL, True),
    (404, "NoSuchBucket", AddressingStyle.PATH, False),
    (403, "SignatureDoesNotMatch", AddressingStyle.VIRTUAL, True),
    (403, "ExpiredToken", AddressingStyle.VIRTUAL, False),
]


@pytest.mark.parametrize("answer", STYLE_ANSWERS, ids=str)
def test_answers_that_a_wrong_style_gives_name_the_field(
    bench: PrepareBench, fault_proxy: FaultProxy, answer: tuple[int, str, AddressingStyle, bool]
) -> None:
    status, code, style, names_field = answer
    know_hosts(bench.monkeypatch, "localhost", "bench.localhost")
    endpoint = fault_proxy.endpoint_url.replace("127.0.0.1", "localhost")
    fault_proxy.faults.append(Fault("PUT", status=status, code=code))
    with pytest.raises(FineTuneError) as caught:
        open_store(Storage(endpoint_url=endpoint, addressing_style=style)).put_bytes(S3Address("bench", "a"), b"x")
    assert ("addressingStyle: path" in caught.value.remedy) == names_field


# Whom to trust.


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    return certificates.create_authority(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def start_tls_store(bench: PrepareBench, pair: certificates.KeyPair) -> Iterator[None]:
    """Have the bench's store speak TLS with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with start_fault_proxy(bench.endpoint_url, context) as proxy:
        bench.endpoint_url = proxy.endpoint_url
        yield


def test_a_private_authority_is_trusted_by_both_libraries(
    bench: PrepareBench, authority: certificates.Authority, tmp_path: Path
) -> None:
    bench.monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.key_pair.certificate))
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a").write_bytes(b"hello")
    with start_tls_store(bench, authority.issue("s3", "s3", hosts=["127.0.0.1"])):
        store = open_store(bench.storage)
        assert store.upload_folder(tmp_path / "sent", bench.address("")) == [make_entry("a", b"hello")]
        assert store.fetch_folder(bench.address("a"), tmp_path / "got") == [make_entry("a", b"hello")]


def test_an_image_without_authorities_of_its_own_is_enough(bench: PrepareBench, tmp_path: Path) -> None:
    bench.monkeypatch.setenv("SSL_CERT_FILE", "/none")
    bench.monkeypatch.setenv("SSL_CERT_DIR", "/none")
    (tmp_path / "a").write_bytes(b"hello")
    assert open_store(bench.storage).upload_folder(tmp_path, bench.address("")) == [make_entry("a", b"hello")]


@pytest.fixture(params=["boto", "obstore"])
def write(request: pytest.FixtureRequest, bench: PrepareBench, tmp_path: Path) -> Callable[[], object]:
    """Write an object through either library."""
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a").write_bytes(b"hello")
    if request.param == "boto":
        return lambda: open_store(bench.storage).put_bytes(bench.address("a"), b"hello")
    return lambda: open_store(bench.storage).upload_folder(tmp_path / "sent", bench.address(""))


def test_an_unknown_authority_is_not_trusted(
    bench: PrepareBench, authority: certificates.Authority, write: Callable[[], object]
) -> None:
    with (
        start_tls_store(bench, authority.issue("s3", "s3", hosts=["127.0.0.1"])),
        pytest.raises(StorageUnavailable, match="over a TLS connection that can be verified") as caught,
    ):
        write()
    assert "AWS_CA_BUNDLE" in caught.value.remedy


def test_a_certificate_that_signed_itself_is_named(
    bench: PrepareBench, authority: certificates.Authority, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    bench.monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.key_pair.certificate))
    with (
        start_tls_store(bench, authority.key_pair),
        pytest.raises(ConfigError, match="must be served with a certificate that an authority issued"),
    ):
        open_store(bench.storage).upload_folder(tmp_path, bench.address(""))


def test_a_bundle_that_is_not_there_is_named(bench: PrepareBench, write: Callable[[], object]) -> None:
    bench.monkeypatch.setenv("AWS_CA_BUNDLE", "/no/bundle.pem")
    with pytest.raises(ConfigError, match=r"AWS_CA_BUNDLE \('/no/bundle.pem'\) must be a readable file"):
        write()


# With which keys.

KEYS = [
    ("AWS_ACCESS_KEY_ID", "AKIA\n", "of secret s3-credentials ends with a line break"),
    ("AWS_ACCESS_KEY_ID", "AKIA\r\n", "of secret s3-credentials ends with a line break"),
    ("AWS_SECRET_ACCESS_KEY", "se cret", "of secret s3-credentials holds a blank"),
    ("AWS_SECRET_ACCESS_KEY", "\tsecret", "of secret s3-credentials begins with a tab"),
    ("AWS_SECRET_ACCESS_KEY", "secret\u00a0", "of secret s3-credentials ends with the blank U+00A0"),
    ("AWS_SECRET_ACCESS_KEY", "\ufeffsecret", "of secret s3-credentials begins with a byte order mark"),
    ("AWS_SECRET_ACCESS_KEY", "s\x1becret", "of secret s3-credentials holds the control character U+001B"),
    ("AWS_SESSION_TOKEN", "tök", "of secret s3-credentials holds U+00F6, which is no character of ASCII"),
    ("AWS_ACCESS_KEY_ID", '"AKIA"', "of secret s3-credentials is in quotes"),
    ("AWS_ACCESS_KEY_ID", "", "of secret s3-credentials is empty"),
    ("AWS_CA_BUNDLE", "/a/b.pem\n", "ends with a line break"),
    ("AWS_ENDPOINT_URL_S3", " http://s3", "begins with a blank"),
]


@pytest.mark.parametrize(("name", "value", "want"), KEYS)
def test_a_value_that_no_header_can_carry_is_named_and_final(
    bench: PrepareBench, name: str, value: str, want: str
) -> None:
    bench.monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        open_store(bench.storage.model_copy(update={"secret_name": "s3-credentials"}))
    assert caught.value.message == f"{name} {want}"
    assert caught.value.exit_code == 78
    assert "--from-literal" in caught.value.remedy


def test_all_such_values_are_named_together_and_none_is_shown(bench: PrepareBench) -> None:
    bench.use_keys("AKIA\n", "secret ")
    with pytest.raises(ConfigError) as caught:
        open_store(bench.storage)
    assert caught.value.message == ("AWS_ACCESS_KEY_ID ends with a line break; AWS_SECRET_ACCESS_KEY ends with a blank")


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SESSION_TOKEN", ""), ("AWS_CONFIG_FILE", "/a b/ü"), ("AWS_REGION", "")]
)
def test_values_that_work_are_let_pass(bench: PrepareBench, name: str, value: str) -> None:
    bench.monkeypatch.setenv(name, value)
    open_store(bench.storage)


def test_keys_that_expire_are_asked_for_again(bench: PrepareBench, tmp_path: Path) -> None:
    """An identity that hands out short-lived keys: here a program, in a cluster the node or the token service."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        bench.monkeypatch.delenv(name)
    keys, program, config = tmp_path / "keys.json", tmp_path / "program.py", tmp_path / "config"
    program.write_text(f"print(open({str(keys)!r}).read())")
    config.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    bench.monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    bench.monkeypatch.setattr(bucket, "_CREDENTIALS_TTL", bucket._CREDENTIALS_TTL * 0)

    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a").write_bytes(b"hello")

    def hand_out(access_key: str, secret_key: str) -> None:
        # Ends soon, so that boto asks the program whenever it is asked itself.
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
        document = {"Version": 1, "AccessKeyId": access_key, "SecretAccessKey": secret_key}
        keys.write_text(json.dumps(document | {"Expiration": end.isoformat()}))

    hand_out(bench.server.access_key, "not-valid-any-more")
    store = open_store(bench.storage)
    with pytest.raises(AccessDenied):
        store.upload_folder(tmp_path / "sent", bench.address(""))
    hand_out(bench.server.access_key, bench.server.secret_key)
    store.upload_folder(tmp_path / "sent", bench.address(""))
    assert bench.get("a") == b"hello"


def test_an_identity_that_gives_no_keys_ends_with_77(
    bench: PrepareBench, tmp_path: Path, write: Callable[[], object]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        bench.monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} -c 1/0\n")
    bench.monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(AccessDenied, match="the pod's identity gave none"):
        write()


def test_what_a_store_repeats_of_a_request_is_not_shown(
    bench: PrepareBench, fault_proxy: FaultProxy, write: Callable[[], object]
) -> None:
    """S3 answers a wrong signature with the headers it has seen, the session token among them."""
    bench.monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-a-session")
    detail = "<CanonicalRequest>x-amz-security-token:token-of-a-session</CanonicalRequest>"
    fault_proxy.faults.append(Fault("PUT", status=403, code="SignatureDoesNotMatch", detail=detail))
    with pytest.raises(AccessDenied) as caught:
        write()
    shown = "".join(traceback.format_exception(caught.value))
    assert "SignatureDoesNotMatch" in shown
    assert "token-of-a-session" not in shown


# Signals.


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Handle SIGTERM as the stages do."""
    monkeypatch.setattr(signals, "_received", [])
    before = signal.signal(signal.SIGTERM, signals._receive)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_signal_ends_a_transfer_that_stands_still(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, method: str
) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a").write_bytes(b"hello")
    bench.put("b", b"hello")
    store, progress = open_store(bench.storage), signals.build_progress("the test")
    files = store.list_files(bench.address("b"))
    transfer = {
        "GET": lambda: store.fetch_files(files, tmp_path / "got", progress),
        "PUT": lambda: store.upload_folder(tmp_path / "sent", bench.address(""), progress),
    }[method]
    silence = threading.Event()
    fault_proxy.faults.append(Fault(method, signal=signal.SIGTERM, silence=silence))
    with pytest.raises(Interrupted, match="SIGTERM interrupted the test"):
        transfer()
    silence.set()
