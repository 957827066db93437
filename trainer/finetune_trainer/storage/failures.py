"""What an answer of the store, or none, means: exceptions of boto and obstore as classes of `finetune_api.errors`.

Classified by the code of the answer, then by its status; where none came, by what boto or obstore says instead. Final
or retried is decided by the class. Messages name the address and the host; they never hold keys, tokens, signed URLs,
or what the store wrote, which may repeat a token.
"""

import re
from dataclasses import dataclass

from botocore import exceptions
from obstore.exceptions import BaseError

from finetune_api.errors import (
    AccessDenied,
    ConfigError,
    DataError,
    FineTuneError,
    ReferenceNotFound,
    StorageUnavailable,
)

CREDENTIAL_ERRORS = (exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError)
TransferError = (BaseError, FileNotFoundError, FileExistsError)
"""What obstore raises: beside its own, two of Python's."""
S3Error = (exceptions.BotoCoreError, exceptions.ClientError, *TransferError)
"""What boto and obstore raise; catch this, then call `classify`."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an answer of one of these codes or statuses means."""

    codes: frozenset[str]
    statuses: tuple[int, ...]
    error: type[FineTuneError]
    rule: str
    remedy: str
    may_be_style: bool = False
    """Whether a bucket that is put in front of the wrong host is answered so."""


# Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; bare numbers come from HEAD requests.
_MEANINGS = (
    _Meaning(
        frozenset({"NoSuchBucket"}),
        (),
        ReferenceNotFound,
        "must exist",
        "correct the bucket's name or create the bucket.",
        may_be_style=True,
    ),
    _Meaning(
        frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchUpload", "NotFound"}),
        (404,),
        ReferenceNotFound,
        "must exist",
        "correct the address or upload what it names.",
    ),
    _Meaning(
        frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"}),
        (),
        AccessDenied,
        "must be reached with valid credentials",
        "renew the credentials, and check the node's clock.",
    ),
    _Meaning(
        frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}),
        (301,),
        ConfigError,
        "must lie in the region and behind the endpoint of spec.storage",
        "correct spec.storage.region, endpointURL or addressingStyle.",
    ),
    _Meaning(
        frozenset({"SignatureDoesNotMatch"}),
        (),
        AccessDenied,
        "must be open to the run's credentials",
        "check the secret key and spec.storage.region.",
        may_be_style=True,
    ),
    _Meaning(
        frozenset({"AccessDenied", "InvalidAccessKeyId", "AllAccessDisabled", "AccountProblem"}),
        (401, 403),
        AccessDenied,
        "must be open to the run's credentials",
        "check the credentials and what they may do there.",
    ),
    _Meaning(
        frozenset({"PreconditionFailed"}),
        (412,),
        DataError,
        "must not change while it is read",
        "start the job again when it is final.",
    ),
    _Meaning(
        frozenset({"EntityTooLarge"}), (413,), ConfigError, "must fit into the store", "raise the store's size limit."
    ),
    _Meaning(
        frozenset({"InvalidBucketName", "KeyTooLongError"}),
        (),
        ConfigError,
        "must be a valid address",
        "correct the bucket's name or the key.",
    ),
    _Meaning(
        frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}),
        (),
        StorageUnavailable,
        "must arrive as it was sent",
        "look at what lies between the pod and the store.",
    ),
    _Meaning(
        frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}),
        (429, *range(500, 600)),
        StorageUnavailable,
        "must be served, also after the request was repeated",
        "look at the store's health.",
    ),
)

_NO_WORDS = "\0"
# Where no answer came: what boto raises, or words of obstore's message. The last line matches everything.
_NO_ANSWER: tuple[tuple[tuple[type[Exception], ...], str, type[FineTuneError], str, str], ...] = (
    (
        (exceptions.NoCredentialsError, exceptions.PartialCredentialsError),
        _NO_WORDS,
        AccessDenied,
        "must be reached with credentials, and the pod has none",
        "name a Secret in spec.storage.secretName, or give the pod's service account an identity.",
    ),
    (
        CREDENTIAL_ERRORS,
        "External AWS credential provider",
        AccessDenied,
        "must be reached with credentials, and the pod's identity gave none",
        "check the role of the pod's service account.",
    ),
    (
        (exceptions.ParamValidationError,),
        _NO_WORDS,
        ConfigError,
        "must be a valid address",
        "correct the bucket's name or the key.",
    ),
    (
        (),
        "without LOCATION",
        ConfigError,
        "must lie in the region and behind the endpoint of spec.storage",
        "correct spec.storage.region, endpointURL or addressingStyle.",
    ),
    (
        (),
        "non-partial response",
        ConfigError,
        "must be served in parts, and the whole object came",
        "use a store that knows the header Range.",
    ),
    (
        (),
        "CaUsedAsEndEntity",
        ConfigError,
        "must be served with a certificate that an authority issued; this one has signed itself",
        "issue one for the host with an authority of your own, and name that one's bundle by AWS_CA_BUNDLE.",
    ),
    (
        (exceptions.SSLError,),
        "InvalidCertificate",
        StorageUnavailable,
        "must be served over a TLS connection that can be verified",
        "check spec.storage.endpointURL; a private authority's bundle is named by AWS_CA_BUNDLE.",
    ),
    (
        (Exception,),
        _NO_WORDS,
        StorageUnavailable,
        "must be served, and no whole answer came",
        "check spec.storage.endpointURL, network policies and the store itself.",
    ),
)
_STATUS_WORDS = "Server returned non-2xx status code: "
_STATUS = re.compile(r"(\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_METHOD = re.compile(r"Error performing ([A-Z]+) ")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an answer; 0 and empty where none came."""

    status: int = 0
    code: str = ""
    method: str = ""


def read_answer(error: Exception) -> Answer:
    """Return what the store answered, as boto or obstore tells it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Answer(int(status), str(response.get("Error", {}).get("Code", "")))
    if isinstance(error, TransferError):
        # obstore's exceptions have no attributes; their text holds the key, then the status and the answer's body.
        before, _, after = str(error).partition(_STATUS_WORDS)
        return Answer(int(_find(_STATUS, after) or "0"), _find(_CODE, after), _find(_METHOD, before))
    return Answer()


def is_broken_off(error: Exception) -> bool:
    """Tell whether an answer had begun and then ended early, which obstore doesn't always repeat."""
    return _find(_KIND, str(error)) == "Interrupted"


def count_retries(response: object) -> int:
    """Return how often boto had repeated the request behind an answer or an error's answer."""
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return int(metadata.get("RetryAttempts", 0))


def classify(error: Exception, address: str, host: str, style_hint: str = "") -> FineTuneError:
    """Turn an exception of boto or obstore into ours; return ours as they are.

    Args:
        error: what was raised.
        address: the `s3://` address that was asked for.
        host: where the request went, or `AWS`.
        style_hint: a sentence about the addressing style, where it may be the cause; else empty.
    """
    if isinstance(error, FineTuneError):
        return error
    answer = read_answer(error)
    if answer.status:
        return _classify_answer(answer, address, host, style_hint)
    text = str(error) if isinstance(error, TransferError) else ""
    kind, rule, remedy = next(line[2:] for line in _NO_ANSWER if isinstance(error, line[0]) or line[1] in text)
    seen = _find(_KIND, text) or type(error).__name__
    if kind is StorageUnavailable and style_hint:
        remedy = f"{remedy} {style_hint}"
    return kind(f"{address} {rule} ({host}: {seen})", remedy)


def _classify_answer(answer: Answer, address: str, host: str, style_hint: str) -> FineTuneError:
    code, status = answer.code, answer.status
    method = f" to {answer.method}" if answer.method else ""
    seen = f"({host} answered {status}{'' if code in ('', str(status)) else f' {code}'}{method})"
    # A code says more than a status: 400 and 403 stand for many things.
    for known in (
        *(meaning for meaning in _MEANINGS if code in meaning.codes),
        *(meaning for meaning in _MEANINGS if status in meaning.statuses),
    ):
        remedy = f"{known.remedy} {style_hint}" if known.may_be_style and style_hint else known.remedy
        return known.error(f"{address} {known.rule} {seen}", remedy)
    return FineTuneError(f"{address} got an answer that is not known here {seen}", "look at the store's own log.")


def _find(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1) if match else ""
