"""The kind FineTuneJob. Everything here is pure: objects as read in, decisions and manifests out.

kind          what the runtime calls
reconcile     the order in which a FineTuneJob is looked at: read this first
context       what one pass reads and gathers
observe       objects of the cluster -> frozen facts
attempts/     an attempt from its start to its end
policies/     one rule per file: retries, deadlines, suspension, TTL, admission
builders/     spec -> Job manifest
conditions    where the run stands -> conditions and phase
failures      what a failure tells the user
progress, transitions, cleanup    what follows from it: status.progress, Events, what is removed
metrics       the series about FineTuneJobs
"""

__all__: list[str] = []
