"""Many disturbed runs side by side, each result kept as a file, so that a sweep that was ended goes on where it stood.

Results belong to the images that were tried: another trainer or operator begins anew.
"""

import dataclasses
import json
import secrets
import statistics
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import disturbance_plans
import tiny_models
from disturbance_plans import RECIPES
from disturbed_runs import Bench, Published
from fault_proxy import start_fault_proxy

from finetune_devcluster import cache, network, services, state

SIDE_BY_SIDE = 3
"""Pods of 600m that fit on two cores."""
Result = dict[str, Any]


class Sweep:
    """Carries out plans.

    Args:
        product: what runs them.
        folder: of the results.
        bench: where they run.
    """

    def __init__(self, product: Any, folder: Path, bench: Bench) -> None:
        self._product, self._folder, self._bench = product, folder, bench
        self._pool = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="run")
        known = state.load_state(product.running.name)
        self._host_address = network.Network(known.network_index if known else 1).host_address
        self._references: dict[str, Future[Published]] = {}

    def submit(self, seeds: list[int]) -> dict[int, Future[Result]]:
        """Begin the runs of seeds, but for those whose result is known, as soon as there is room."""
        recipes = {seed: disturbance_plans.draw_plan(seed).recipe for seed in seeds}
        # First, so that no run holds a place while it waits for what it is compared with.
        self._references |= {name: self._pool.submit(self._run_reference, name) for name in sorted({*recipes.values()})}
        return {seed: self._pool.submit(self._run, seed) for seed in seeds}

    def stop(self) -> None:
        """End what runs; results that are there stay."""
        self._bench.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def write_summary(self) -> str:
        """Sum up every result there is, as `summary.json` and as the text that is returned."""
        results = [json.loads(path.read_text()) for path in sorted(self._folder.glob("run-*.json"))]
        if not results:
            return "no run has come to its end"
        rows = summarize(results)
        _write(self._folder / "summary.json", rows)
        wrong = [f"seed {item['plan']['seed']}: {text}" for item in results for text in item["wrong"]]
        return "\n".join([write_table(rows), *wrong, f"one by one in {self._folder}"])

    def _run_reference(self, recipe: str) -> Published:
        path = self._folder / f"undisturbed-{recipe}.json"
        if not path.exists():
            watch = self._bench.apply(f"undisturbed-{recipe}", RECIPES[recipe], None)
            published = self._bench.read_published(self._bench.finish(watch))
            _write(path, dataclasses.asdict(published))
        return Published(**json.loads(path.read_text()))

    def _run(self, seed: int) -> Result:
        path = self._folder / f"run-{seed:04}.json"
        if not path.exists():
            plan = disturbance_plans.draw_plan(seed)
            want = self._references[plan.recipe].result()
            with start_fault_proxy(self._product.running.s3.endpoint_url, address=self._host_address) as proxy:
                service, port = f"s3-{seed}", int(proxy.endpoint_url.rsplit(":", 1)[1])
                services.expose_host_service(
                    self._product.running.kubeconfig, self._bench.namespace, service, self._host_address, port
                )
                outcome = self._bench.carry_out(
                    plan, proxy, f"http://{service}.{self._bench.namespace}.svc:{port}", want
                )
            _write(path, dataclasses.asdict(outcome))
        result: Result = json.loads(path.read_text())
        return result


def _write(path: Path, content: Any) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(content, indent=1))
    draft.rename(path)


def _get_folder(product: Any) -> Path:
    folder = cache.cache_directory() / "disruptions" / product.images
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def open_bench(product: Any) -> Iterator[Bench]:
    """Open a fresh namespace with rows and tiny models for every recipe."""
    namespace = f"disrupted-{secrets.token_hex(3)}"
    product.make_namespace(namespace)
    rows = {recipe.task: disturbance_plans.build_rows(recipe.task) for recipe in RECIPES.values()}
    product.upload("datasets", {f"disturbed/{task}.jsonl": content for task, content in rows.items()})
    for kind, build in (("encoder", tiny_models.build_encoder), ("decoder", tiny_models.build_decoder)):
        model = _get_folder(product) / kind
        if not model.exists():
            build(model)
        product.upload("models", {f"tiny-{kind}/{path.name}": path.read_bytes() for path in sorted(model.iterdir())})
    try:
        yield Bench(product, namespace)
    finally:
        product.delete_namespace(namespace)


@contextmanager
def open_sweep(product: Any) -> Iterator[Sweep]:
    """Open the sweep over the images that are installed."""
    with open_bench(product) as bench:
        sweep = Sweep(product, _get_folder(product), bench)
        try:
            yield sweep
        finally:
            sweep.stop()


def summarize(results: list[Result]) -> list[Result]:
    """Sum results up, a row for each recipe and interval, and one for all: how many, how many right, what was lost."""
    groups: dict[tuple[str, str], list[Result]] = {("all", ""): results}
    for result in results:
        every = f"{result['plan']['every_seconds']} s" if result["plan"]["every_seconds"] else "chosen"
        groups.setdefault((result["plan"]["recipe"], every), []).append(result)
    return [_sum_up(name, every, groups[name, every]) for name, every in sorted(groups)]


def _sum_up(name: str, every: str, results: list[Result]) -> Result:
    steps = [int(item["lost_steps_seen"]) for item in results]
    seconds = [int(item["status"]["lostSeconds"]) for item in results]
    return {
        "recipe": name,
        "checkpoints every": every,
        "runs": len(results),
        "right": sum(not item["wrong"] for item in results),
        "interruptions": sum(bool(done["seen"]) for item in results for done in item["done"]),
        "attempts": sum(len(item["status"]["attempts"]) for item in results),
        "lost steps, median": statistics.median(steps),
        "lost steps, most": max(steps),
        "lost seconds, median": statistics.median(seconds),
        "lost seconds, most": max(seconds),
    }


def write_table(rows: list[Result]) -> str:
    """Write the sums as a table of text."""
    names = list(rows[0])
    lines = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
