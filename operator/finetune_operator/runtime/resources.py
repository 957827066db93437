"""The resources of the API server that the runtime reads and writes beside those of a kind. No I/O."""

from dataclasses import dataclass

ALL_NAMESPACES = ""
"""In the place of a namespace."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type.

    Attributes:
        group: empty for the core group.
        plural: as in a URL.
    """

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """Group and version as in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def build_path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of a collection, an object or a subresource; without a namespace that of all namespaces."""
        prefix = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        place = f"namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (prefix, place, self.plural, name, subresource) if part)


JOBS = Resource("batch", "v1", "Job", "jobs")
PODS = Resource("", "v1", "Pod", "pods")
EVENTS = Resource("", "v1", "Event", "events")
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")
