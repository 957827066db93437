"""What pods of an attempt tell, taken over into the status: while they run, and once more at their end. Pure.

It is shown to people and decides nothing: how a stage ended is `outcome`'s to say.
"""

import ipaddress
from datetime import timedelta

from finetune_api import artifacts, group, live, run
from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import CheckpointStatus, Metric, Progress
from finetune_api.live import LiveProgress
from finetune_api.run import Stage, TerminationMessage
from finetune_operator.jobs import reports
from finetune_operator.jobs.attempts import outcome, resumption
from finetune_operator.jobs.context import Context
from finetune_operator.jobs.observe import ChildPod
from finetune_operator.jobs.reports import Known
from finetune_operator.runtime import logs
from finetune_operator.runtime.plan import Endpoint

_MAX_ESTIMATE = timedelta(days=3650)
"""A longer one is no estimate (a choice)."""
_MAX_REQUEST_LENGTH = 256
_MOST_BEFORE_SUCCESS = 99


def read_end(context: Context) -> None:
    """Take over what the open attempt's last pod told at its end, whatever the end."""
    attempt, pods = context.attempt, context.list_pods()
    if attempt is None or attempt.stage != Stage.TRAIN or not pods or not pods[-1].is_terminal:
        return
    _read_last_step(context, pods[-1])
    message = outcome.parse_message(pods[-1].termination_text, Stage.TRAIN, attempt.number)
    if message is None or _is_outdated(context, pods[-1]):
        return
    _take_over(context, pods[-1], message)
    if message.step is not None:
        _update(context, step=message.step)
    # Of checkpoints that could not be used, for instance: whoever goes on must know.
    context.add_warnings(message.warnings)


def _read_last_step(context: Context, pod: ChildPod) -> None:
    """Take over the step that a pod had reached when it was asked last, news or not: it may have been lost."""
    answer, known = context.observed.answer, _build_known(context, pod)
    if answer is None or answer.pod_uid != pod.uid or known.progress is None:
        return
    report = reports.parse_report(answer.body, known.layout) if answer.body else None
    if report is not None and report.step is not None:
        _update(context, step=max(report.step, known.progress.step))


def _is_outdated(context: Context, pod: ChildPod) -> bool:
    """Tell whether another pod has told something since this one ended: evicted, it leaves its predecessor the last."""
    progress = context.status.progress
    if progress is None or progress.pod in (None, pod.name) or progress.update_time is None:
        return False
    return pod.finished_at is not None and status_fields.parse_time(progress.update_time) > pod.finished_at


def read_answer(context: Context) -> None:
    """Take over what the running pod of the open attempt answered, where it is news."""
    answer, pod = context.observed.answer, _find_running_pod(context)
    if answer is None or pod is None or answer.pod_uid != pod.uid:
        return
    if answer.wish:
        context.update(checkpoint_request=answer.wish)
    known = _build_known(context, pod)
    report = reports.parse_report(answer.body, known.layout) if answer.body else None
    if report is None or not reports.is_news(known, report):
        return
    _take_over(context, pod, report)
    _update(context, **_build_figures(context, report))


def find_endpoint(context: Context) -> Endpoint | None:
    """Return how the running pod of the open attempt is asked; None: none runs, or it has no address yet."""
    pod = _find_running_pod(context)
    if pod is None or not pod.address or context.attempt is None:
        return None
    address = ipaddress.ip_address(pod.address)
    host = f"[{address}]" if address.version == 6 else str(address)
    base = f"http://{host}:{run.METRICS_PORT}"
    wish = context.job.annotations.get(group.ANNOTATION_CHECKPOINT_NOW, "")[:_MAX_REQUEST_LENGTH]
    is_new = context.attempt.stage == Stage.TRAIN and wish != context.status.checkpoint_request
    return Endpoint(
        pod_uid=pod.uid,
        url=f"{base}{live.PROGRESS_PATH}",
        headers={live.POD_HEADER: pod.uid},
        wish=wish if is_new else "",
        wish_url=f"{base}{live.CHECKPOINT_PATH}",
        known=_build_known(context, pod),
    )


def _find_running_pod(context: Context) -> ChildPod | None:
    return next((pod for pod in reversed(context.list_pods()) if pod.is_running(context.now)), None)


def _build_known(context: Context, pod: ChildPod) -> Known:
    progress = context.status.progress
    is_same = progress is not None and progress.pod == pod.name
    layout = artifacts.build_run_layout(context.spec.output.uri if context.spec else "", context.job.uid)
    return Known(layout, progress if is_same else None, context.status.checkpoints)


def _take_over(context: Context, pod: ChildPod, told: LiveProgress | TerminationMessage) -> None:
    """Take over what pods tell both while they run and at their end."""
    known = _build_known(context, pod)
    if known.progress is None:
        _begin_pod(context, pod)
    if told.checkpoints is not None and reports.are_inside(told.checkpoints, known.layout):
        context.update(checkpoints=_sort_checkpoints(told.checkpoints))
    progress = context.status.progress or Progress()
    if told.resumed_from_step is not None and progress.resumed_from_step is None:
        resumption.record_begin(context, pod, told.resumed_from_step, told.lost_steps, _find_end_step(context, pod))
        _update(context, resumed_from_step=told.resumed_from_step)
    failure = status_fields.build_message(logs.scrub_text(told.checkpoint_failure or ""))
    _update(context, checkpoint_failure=failure or None)


def _find_end_step(context: Context, pod: ChildPod) -> int | None:
    """Return how far the pod before this one of the same Job came, where it told its end."""
    others = [item for item in context.list_pods() if item.uid != pod.uid and item.is_terminal]
    number = context.status.attempts[-1].number
    message = outcome.parse_message(others[-1].termination_text, Stage.TRAIN, number) if others else None
    return message.step if message is not None else None


def _begin_pod(context: Context, pod: ChildPod) -> None:
    """Forget what is true of the pod before alone; how far that came is kept until this one says where it begins."""
    stage = context.status.attempts[-1].stage
    old = context.status.progress or Progress()
    kept = {"step": old.step, "percent": old.percent, "last_evaluation": old.last_evaluation}
    kept = kept if old.stage == stage else {}
    context.update(progress=Progress(stage=stage, pod=pod.name, total_steps=old.total_steps, **kept))


def _sort_checkpoints(checkpoints: list[CheckpointStatus]) -> list[CheckpointStatus]:
    shown = [item.model_copy(update={"metrics": reports.scrub_metrics(item.metrics)}) for item in checkpoints]
    return sorted(shown, key=lambda item: (item.step, item.attempt), reverse=True)


def _build_figures(context: Context, report: LiveProgress) -> dict[str, object]:
    """Return what of the progress follows from a running pod's answer."""
    left = report.estimated_remaining_seconds
    is_estimate = left is not None and left <= _MAX_ESTIMATE.total_seconds()
    figures: dict[str, object] = {
        "phase": report.phase,
        "estimated_remaining_seconds": left if is_estimate else None,
        "estimated_completion_time": status_fields.build_time(context.now + timedelta(seconds=left or 0))
        if is_estimate
        else None,
        "tokens_per_second": report.tokens_per_second,
        "metrics": [Metric(name="train_loss", value=report.train_loss, split="train")] if report.train_loss else [],
    }
    if report.step is not None and context.status.attempts[-1].stage == Stage.TRAIN:
        figures["step"] = report.step
        figures["percent"] = min(_MOST_BEFORE_SUCCESS, report.percent or 0)
    if report.total_steps is not None:
        figures["total_steps"] = report.total_steps
    if report.last_evaluation is not None:
        metrics = reports.scrub_metrics(report.last_evaluation.metrics)
        figures["last_evaluation"] = report.last_evaluation.model_copy(update={"metrics": metrics})
    return figures


def _update(context: Context, **changes: object) -> None:
    context.update(progress=(context.status.progress or Progress()).model_copy(update=changes))
