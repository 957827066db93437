"""Who is answered at the operator's own endpoints."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from finetune_devcluster import ports
from finetune_operator.runtime import health
from finetune_operator.runtime.metrics import Metrics

ASKED = {
    "no token": {},
    "another": {"Authorization": "Bearer other"},
    "the token without its scheme": {"Authorization": "a-token"},
    "not ASCII": {"Authorization": "Bearer ä"},
    "an empty one": {"Authorization": "Bearer "},
    "the token": {"Authorization": "Bearer a-token"},
}


def _ask(token_file: Path | str, path: str) -> dict[str, int]:
    """Return the status of each way to ask for a path."""

    async def ask() -> dict[str, int]:
        metrics = Metrics()
        state = health.Health(metrics, 30)
        state.record_resync((), has_drift=False)
        metrics_port, health_port = ports.choose_ports(2)
        runner = await health.serve(
            metrics,
            state,
            metrics_port=metrics_port,
            health_port=health_port,
            metrics_token_file=str(token_file),
        )
        try:
            async with aiohttp.ClientSession() as session:
                found = {}
                for name, headers in ASKED.items():
                    async with session.get(f"http://127.0.0.1:{metrics_port}{path}", headers=headers) as answer:
                        found[name] = answer.status
                return found
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


def test_with_a_token_only_who_has_it_reads_the_metrics(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-token\n")
    assert _ask(file, "/metrics") == {**dict.fromkeys(ASKED, 401), "the token": 200}


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "a line break"])
def test_a_token_that_is_not_there_lets_nobody_in(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    assert set(_ask(file, "/metrics").values()) == {401}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_without_a_token(tmp_path: Path, path: str) -> None:
    (tmp_path / "token").write_text("a-token")
    assert set(_ask(tmp_path / "token", path).values()) == {200}


def test_without_a_token_everybody_reads_the_metrics() -> None:
    assert set(_ask("", "/metrics").values()) == {200}
