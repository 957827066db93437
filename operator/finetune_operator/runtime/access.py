"""What the operator's ServiceAccount must be allowed to do, and the check of it at the start.

A missing verb would otherwise hang in silence: kopf retries a 403 for ever.
"""

import logging
from collections.abc import Sequence

from finetune_operator.runtime.api_client import ApiError, Client
from finetune_operator.runtime.resources import ACCESS_REVIEWS, ALL_NAMESPACES, Resource

Rule = tuple[str, str, tuple[str, ...]]
"""Group, resource with its subresource, verbs."""

_CHILD_RULES: tuple[Rule, ...] = (
    ("batch", "jobs", ("get", "list", "watch", "create", "patch", "delete")),
    ("", "pods", ("list", "watch")),
    ("", "events", ("create", "list")),
)

logger = logging.getLogger(__name__)


class AccessError(Exception):
    """The API server can't be used as it is; the message says what is missing."""


def list_rules(resource: Resource) -> tuple[Rule, ...]:
    """Return everything that running a kind needs; `finalizers` is for blockOwnerDeletion."""
    return (
        (resource.group, resource.plural, ("get", "list", "watch")),
        (resource.group, f"{resource.plural}/status", ("patch",)),
        (resource.group, f"{resource.plural}/finalizers", ("update",)),
        *_CHILD_RULES,
    )


async def check_access(client: Client, resource: Resource, namespaces: Sequence[str]) -> None:
    """Make sure that the kind exists and that every verb is granted where the operator works.

    One namespace that can't be used, a deleted one say, is warned about: the others must not suffer for it.

    Raises:
        AccessError: the kind is missing, or no namespace can be used; all missing rules are named.
        ClientError: the API server gives no answer to the question.
    """
    problems = {}
    for name in namespaces or (ALL_NAMESPACES,):
        problem = await _find_problem(client, resource, name)
        if problem:
            problems[name] = problem
    if len(problems) == len(namespaces or (ALL_NAMESPACES,)):
        raise AccessError("; ".join(problems.values()))
    for name, problem in problems.items():
        logger.warning("watched namespace can't be used: %s", problem, extra={"namespace": name})


async def can_select(client: Client, resource: Resource, namespaces: Sequence[str], fields: str) -> bool:
    """Tell whether the API server knows a field selector; an older CRD lacks the field."""
    for namespace in namespaces or (ALL_NAMESPACES,):
        try:
            await _probe_list(client, resource, namespace, fields)
        except ApiError as error:
            # Any other refusal is no answer to this question, and was told by `check_access`.
            if error.code == 400:
                return False
    return True


async def _find_problem(client: Client, resource: Resource, namespace: str) -> str:
    missing = await _find_missing_rules(client, list_rules(resource), namespace)
    if missing:
        return f"the operator's ServiceAccount must be allowed to {'; '.join(missing)}"
    try:
        await _probe_list(client, resource, namespace)
    except ApiError as error:
        if error.code == 404:
            raise AccessError(
                f"the API server must serve {resource.plural}.{resource.api_version}; install the CRD"
            ) from error
        if error.code == 403:
            return f"{resource.plural} can't be listed: {error}"
        raise
    return ""


async def _probe_list(client: Client, resource: Resource, namespace: str, fields: str = "") -> None:
    async for _ in client.list_pages(resource, namespace, 1, fields=fields):
        return


async def _find_missing_rules(client: Client, rules: Sequence[Rule], namespace: str) -> list[str]:
    missing = []
    for api_group, name, verbs in rules:
        plural, _, subresource = name.partition("/")
        for verb in verbs:
            attributes = {"group": api_group, "resource": plural, "subresource": subresource, "verb": verb}
            place = {"namespace": namespace} if namespace else {}
            review = {
                "apiVersion": ACCESS_REVIEWS.api_version,
                "kind": ACCESS_REVIEWS.kind,
                "spec": {"resourceAttributes": attributes | place},
            }
            answer = await client.create(ACCESS_REVIEWS, ALL_NAMESPACES, review)
            if not answer["status"]["allowed"]:
                where = f" in namespace {namespace}" if namespace else " in all namespaces"
                missing.append(f"{verb} {name}{'.' + api_group if api_group else ''}{where}")
    return missing
