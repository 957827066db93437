"""What an answer of the store, or none, means: boto's exceptions as classes of `finetune_api.errors`.

Classified by exception type first, then by the code of the answer. Final or retried is decided by the class. Messages
name the address; they never hold keys, tokens or signed URLs.
"""

from dataclasses import dataclass

from botocore import exceptions

from finetune_api.errors import (
    AccessDenied,
    ConfigError,
    DataError,
    FineTuneError,
    ReferenceNotFound,
    StorageUnavailable,
)

S3Error = (exceptions.BotoCoreError, exceptions.ClientError)
"""What boto raises; catch this, then call `classify`."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What an answer of one of these codes or statuses means."""

    codes: frozenset[str]
    statuses: tuple[int, ...]
    error: type[FineTuneError]
    rule: str
    remedy: str


# Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; bare numbers come from HEAD requests.
_MEANINGS = (
    _Meaning(
        frozenset({"NoSuchBucket"}),
        (),
        ReferenceNotFound,
        "must exist",
        "correct the bucket's name or create the bucket.",
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
        frozenset(
            {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "AccountProblem"}
        ),
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
        "the run is tried again; look at what lies between the pod and the store.",
    ),
    _Meaning(
        frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}),
        (429, *range(500, 600)),
        StorageUnavailable,
        "must be served, also after the request was repeated",
        "the run is tried again; look at the store's health.",
    ),
)

# The last line matches everything.
_NO_ANSWER: tuple[tuple[tuple[type[Exception], ...], type[FineTuneError], str, str], ...] = (
    (
        (exceptions.NoCredentialsError, exceptions.PartialCredentialsError),
        AccessDenied,
        "must be reached with credentials, and the pod has none",
        "name a Secret in spec.storage.secretName, or give the pod's service account an identity.",
    ),
    (
        (exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError),
        AccessDenied,
        "must be reached with credentials, and the pod's identity gave none",
        "check the role of the pod's service account.",
    ),
    (
        (exceptions.ParamValidationError,),
        ConfigError,
        "must be a valid address",
        "correct the bucket's name or the key.",
    ),
    (
        (exceptions.SSLError,),
        StorageUnavailable,
        "must be served over a TLS connection that can be verified",
        "check spec.storage.endpointURL; a private authority's bundle is named by AWS_CA_BUNDLE.",
    ),
    (
        (Exception,),
        StorageUnavailable,
        "must be served, and no whole answer came",
        "check spec.storage.endpointURL, network policies and the store itself; the run is tried again.",
    ),
)


def get_code(error: Exception) -> str:
    """Return the store's code for an error, `""` where no answer came."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def get_status(error: Exception) -> int:
    """Return the HTTP status of an error, 0 where no answer came."""
    response = getattr(error, "response", None)
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(response, dict) else 0


def count_retries(response: object) -> int:
    """Return how often boto had repeated the request behind an answer or an error's answer."""
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return int(metadata.get("RetryAttempts", 0))


def classify(error: Exception, address: str, endpoint: str) -> FineTuneError:
    """Turn an exception of boto into ours; return ours as they are.

    Args:
        error: what was raised.
        address: the `s3://` address that was asked for.
        endpoint: the endpoint as the user knows it, or `AWS`.
    """
    if isinstance(error, FineTuneError):
        return error
    if isinstance(error, exceptions.ClientError):
        return _classify_answer(error, address, endpoint)
    _, error_class, rule, remedy = next(line for line in _NO_ANSWER if isinstance(error, line[0]))
    return error_class(f"{address} {rule} ({endpoint}: {type(error).__name__})", remedy)


def _classify_answer(error: exceptions.ClientError, address: str, endpoint: str) -> FineTuneError:
    code, status = get_code(error), get_status(error)
    seen = f"({endpoint} answered {status}{'' if code in ('', str(status)) else f' {code}'})"
    # A code says more than a status: 400 and 403 stand for many things.
    for known in (
        *(meaning for meaning in _MEANINGS if code in meaning.codes),
        *(meaning for meaning in _MEANINGS if status in meaning.statuses),
    ):
        return known.error(f"{address} {known.rule} {seen}", known.remedy)
    return FineTuneError(f"{address} got an answer that is not known here {seen}", "look at the store's own log.")
