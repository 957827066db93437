"""The controller: knows Kubernetes, not torch and not S3.

Read in this order: `jobs/reconcile.py`, what is decided about a FineTuneJob, as one paragraph; `runtime/kind.py`, what
a kind must say to be run; `runtime/controller.py`, how a decision is carried out. `__main__.py` joins the parts.

    settings      environment -> one frozen object
    runtime/      queue, reads, writes, resync, watches, health: runs any kind, knows none
    jobs/         the kind FineTuneJob: pure decisions and manifests
    handlers      kopf's decorators: watches in, keys out
"""

__all__: list[str] = []
