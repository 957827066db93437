"""Asks a model's class what it makes of the files, in the prepare stage and before any weight is there.

That needs torch, which takes seconds and half a gigabyte and is of no other use to the stage: so a process of its own
asks, behind the fetching and reading of the rows. Where torch has been imported anyway there is nothing to save.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer import signals, tasks
from finetune_trainer.model import structure
from finetune_trainer.model.structure import ModelStructure

_POLL_SECONDS = 0.1
"""Between two looks at the process (a choice)."""


@dataclass(frozen=True, slots=True)
class PendingStructure:
    """The structure of a model, on its way."""

    _coming: Future[ModelStructure]

    def wait(self) -> ModelStructure:
        """Wait for it.

        Raises:
            ModelError: the files don't hold the model that the configuration describes.
        """
        return self._coming.result()


@contextlib.contextmanager
def inspect_behind(spec: FineTuneJobSpec, folder: Path, gguf_file: str | None) -> Iterator[PendingStructure]:
    """Look at a model while the block runs.

    Args:
        spec: of the run.
        folder: with the configuration and the headers of the weights.
        gguf_file: name of the one file, for a GGUF model.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="structure") as pool:
        yield PendingStructure(pool.submit(_inspect, spec, folder, gguf_file))


def _inspect(spec: FineTuneJobSpec, folder: Path, gguf_file: str | None) -> ModelStructure:
    if sys.modules.get("torch") is not None:
        return structure.inspect_structure(folder, gguf_file, spec, tasks.find_preparation(spec.task))
    asked = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    question = {"spec": asked, "folder": str(folder), "gguf_file": gguf_file}
    # What the parent has learned of torch's absence isn't for the child.
    environment = {name: value for name, value in os.environ.items() if name != "TRANSFORMERS_NO_ADVISORY_WARNINGS"}
    with subprocess.Popen(
        [sys.executable, "-m", "finetune_trainer", "--look", json.dumps(question)],
        env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, words = _wait(process)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise RuntimeError(f"the look at the model's structure ended with {process.returncode}: {words[-2000:]}")
    content = json.loads(output)
    if "error" in content:
        raise ModelError(*content["error"])
    found = content["structure"]
    for shapes in ("linear", "quantized"):
        found[shapes] = {name: tuple(shape) for name, shape in found[shapes].items()}
    return ModelStructure(**found)


def _wait(process: "subprocess.Popen[str]") -> tuple[str, str]:
    while True:
        signals.check("the look at the model's structure")
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_POLL_SECONDS)


def answer(question: str) -> None:
    """Be that process: answer on standard output; everything else that libraries say goes to standard error."""
    asked = json.loads(question)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            spec = FineTuneJobSpec.model_validate(asked["spec"])
            task = tasks.find_preparation(spec.task)
            found = structure.inspect_structure(Path(asked["folder"]), asked["gguf_file"], spec, task)
            content: dict[str, object] = {"structure": dataclasses.asdict(found)}
        except ModelError as error:
            content = {"error": [error.message, error.remedy]}
    sys.stdout.write(json.dumps(content))
