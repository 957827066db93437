"""The operator's own series, whatever kinds it runs, under the names of `finetune_api.metrics`.

Recording never fails and never decides.
"""

import platform
from importlib import metadata

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finetune_api import metrics as series
from finetune_api.metrics import Series

# A gauge beside every counter, which nobody reads.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The series of one operator process; a kind registers its own in the same registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = self.build_counter(series.OPERATOR_RECONCILE_TOTAL)
        self.reconcile_duration = self.build_histogram(series.OPERATOR_RECONCILE_DURATION)
        self.queue_depth = self.build_gauge(series.OPERATOR_QUEUE_DEPTH)
        self.last_watch_event = self.build_gauge(series.OPERATOR_LAST_WATCH_EVENT)
        self.resync_drift = self.build_counter(series.OPERATOR_RESYNC_DRIFT_TOTAL)
        self.api_requests = self.build_counter(series.OPERATOR_API_REQUESTS_TOTAL)
        self.api_duration = self.build_histogram(series.OPERATOR_API_REQUEST_DURATION)
        self.pod_requests = self.build_counter(series.OPERATOR_POD_REQUESTS_TOTAL)
        self.loop_lag = self.build_gauge(series.OPERATOR_EVENT_LOOP_LAG)
        build = self.build_gauge(series.OPERATOR_BUILD_INFO)
        build.labels(metadata.version("finetune-operator"), platform.python_version(), metadata.version("kopf")).set(1)
        for result in ("success", "error", "requeue"):
            self.reconciles.labels(result)
        for result in ("success", "error"):
            self.pod_requests.labels(result)
        for kind in ("missed_update", "orphan"):
            self.resync_drift.labels(kind)

    def build_exposition(self) -> bytes:
        """Write all series in Prometheus' text format."""
        return generate_latest(self.registry)

    def build_counter(self, item: Series) -> Counter:
        """Register a counter."""
        return Counter(item.name, item.help, item.labels, registry=self.registry)

    def build_gauge(self, item: Series) -> Gauge:
        """Register a gauge."""
        return Gauge(item.name, item.help, item.labels, registry=self.registry)

    def build_histogram(self, item: Series) -> Histogram:
        """Register a histogram."""
        return Histogram(item.name, item.help, item.labels, registry=self.registry, buckets=item.buckets)
