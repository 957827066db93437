"""The one connection to the API server: requests of the official client, plain dicts in and out.

The library's generated models are left aside: they cost a third of a request's time and drop what they don't know. Each
call is one request, counted and timed; nothing is cached. Failures come out as `ClientError`, so that no other module
knows the library. A 401 makes the next request log in anew.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pydantic_core
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Manifest
from finetune_operator.runtime.projection import Projection
from finetune_operator.runtime.resources import Resource

REQUEST_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS = 30.0, 10.0
MAX_CONNECTIONS = 64
"""Kept open at most (a choice): two for each of the default number of workers."""
PAGE_SIZE, WATCH_PAGE_SIZE = 250, 100
"""Objects per page of our lists, and of kopf's before a watch. Measured: a page of 250 FineTuneJobs of 6 KB each costs
8 MB of memory while it is read; kopf, which keeps what it reads, 40 MB for 500 of 19 KB."""
FIELD_MANAGER = "finetune-operator"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_MERGE_PATCH, _JSON = "application/merge-patch+json", "application/json"
Propagation = Literal["Foreground", "Background"]

logger = logging.getLogger(__name__)


class ClientError(Exception):
    """A request failed; the message says why."""


class ApiError(ClientError):
    """The API server refused a request.

    Attributes:
        code: HTTP status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(ClientError):
    """The API server gave no answer, or broke off in the middle of one."""


class Client:
    """A connection to one API server.

    Args:
        kubeconfig: file that says where and as whom to connect; None: the pod's ServiceAccount or the usual kubeconfig.
    """

    def __init__(self, metrics: Metrics, kubeconfig: Path | None = None) -> None:
        self._metrics = metrics
        self._kubeconfig = kubeconfig
        self._api: ApiClient | None = None
        self._former: ApiClient | None = None
        self._login = asyncio.Lock()
        self._timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)

    async def close(self) -> None:
        """Close all connections."""
        for api in (self._api, self._former):
            if api is not None:
                await api.close()
        self._api = self._former = None

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """Read an object; None if it is not there."""
        try:
            return _parse(await self._request("get", "GET", resource, resource.build_path(namespace, name)))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list_all(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Read the few objects a selector leaves, whole: with a limit the API server would not use its cache."""
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        answer = _parse(await self._request("list", "GET", resource, resource.build_path(namespace), query=query))
        return list(answer.get("items") or ())

    async def list_pages(
        self,
        resource: Resource,
        namespace: str,
        page_size: int,
        *,
        labels: str = "",
        fields: str = "",
        is_metadata_only: bool = False,
        projection: Projection | None = None,
    ) -> AsyncIterator[list[Manifest]]:
        """Read all objects of a namespace, or of all where it is empty, a page at a time.

        Args:
            projection: which fields of each object are read; None: it is read whole.
        """
        parse = _parse if projection is None else projection.parse_page
        position = ""
        while True:
            query = [
                ("limit", str(page_size)),
                ("continue", position),
                ("labelSelector", labels),
                ("fieldSelector", fields),
            ]
            accept = _METADATA_ONLY if is_metadata_only else _JSON
            path = resource.build_path(namespace)
            answer = parse(await self._request("list", "GET", resource, path, query=query, accept=accept))
            yield list(answer.get("items") or ())
            position = (answer.get("metadata") or {}).get("continue") or ""
            if not position:
                return

    async def create(self, resource: Resource, namespace: str, manifest: Manifest) -> Manifest:
        """Create an object; return it as stored."""
        path, query = resource.build_path(namespace), [("fieldManager", FIELD_MANAGER)]
        return _parse(await self._request("create", "POST", resource, path, query=query, body=manifest))

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Manifest, subresource: str = ""
    ) -> Manifest:
        """Apply a JSON merge patch to an object or one of its subresources; return it as stored."""
        path, query = resource.build_path(namespace, name, subresource), [("fieldManager", FIELD_MANAGER)]
        return _parse(
            await self._request(
                "patch", "PATCH", resource, path, query=query, body=patch, content=_MERGE_PATCH, subresource=subresource
            )
        )

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str, propagation: Propagation) -> bool:
        """Delete exactly the object of that uid; tell whether it was there."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": propagation}
        try:
            await self._request("delete", "DELETE", resource, resource.build_path(namespace, name), body=body)
        except ApiError as error:
            # Gone, or another one has taken its name.
            if error.code in (404, 409):
                return False
            raise
        return True

    async def _request(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Manifest | None = None,
        accept: str = _JSON,
        content: str = _JSON,
        subresource: str = "",
    ) -> bytes:
        """Send one request and return the answer's body."""
        label = f"{resource.plural}/{subresource}" if subresource else resource.plural
        async with self._measure(verb, label):
            headers = {"Accept": accept, "Content-Type": content}
            parameters = [(key, value) for key, value in query or () if value]
            try:
                code, data = await self._send(method, path, parameters, headers, body)
            except (TimeoutError, aiohttp.ClientError) as error:
                raise UnreachableError(f"{type(error).__name__}: {error}") from error
            if not 200 <= code < 300:
                raise ApiError(code, _read_message(data) or f"HTTP {code}")
            return data

    async def _send(
        self, method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: Manifest | None
    ) -> tuple[int, bytes]:
        """Send one request; return status and body of the answer."""
        api = await self._connect()
        request = await api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = await api.call_api(*request, _request_timeout=self._timeout)
        data: bytes = await answer.read()
        if answer.status == 401:
            await self._log_out(api)
        return answer.status, data

    async def _connect(self) -> ApiClient:
        async with self._login:
            if self._api is None:
                configuration = await load_configuration(self._kubeconfig)
                configuration.connection_pool_maxsize = MAX_CONNECTIONS
                # Proxies of the environment are left out, as kopf leaves them out for its watches.
                configuration.client_session_kwargs = {"trust_env": False}
                self._api = ApiClient(configuration)
            return self._api

    async def _log_out(self, api: ApiClient) -> None:
        """Forget a login that is no longer accepted; requests under way keep their connections until they end."""
        if self._api is not api:
            return
        logger.warning("the API server no longer accepts the credentials; logging in anew")
        former, self._former, self._api = self._former, api, None
        if former is not None:
            await former.close()

    @asynccontextmanager
    async def _measure(self, verb: str, resource: str) -> AsyncIterator[None]:
        begin, code = time.monotonic(), "200"
        try:
            yield
        except ApiError as error:
            code = str(error.code)
            raise
        except ClientError:
            code = "none"
            raise
        finally:
            self._metrics.api_requests.labels(verb, resource, code).inc()
            self._metrics.api_duration.labels(verb, resource).observe(time.monotonic() - begin)


async def load_configuration(kubeconfig: Path | None = None) -> Configuration:
    """Read the pod's ServiceAccount or, outside a cluster, a kubeconfig.

    Raises:
        UnreachableError: there is neither, or it is incomplete.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None and Path(SERVICE_TOKEN_FILENAME).exists():
            kubernetes_config.load_incluster_config(client_configuration=configuration)
        else:
            await kubernetes_config.load_kube_config(
                config_file=str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION),
                client_configuration=configuration,
                persist_config=False,
            )
    except (kubernetes_config.ConfigException, OSError) as error:
        raise UnreachableError(
            f"there must be a ServiceAccount or a kubeconfig with a current context: {error}"
        ) from error
    return configuration


def _parse(data: bytes) -> Manifest:
    # pydantic's parser takes half the time of the standard library's, and keeps one copy of each key.
    parsed: Manifest = pydantic_core.from_json(data, cache_strings="keys")
    return parsed


def _read_message(data: bytes) -> str:
    try:
        answer: Any = json.loads(data)
    except ValueError:
        return data.decode(errors="replace")[:1024]
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""
