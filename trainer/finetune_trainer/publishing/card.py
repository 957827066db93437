"""The model card: README.md of the published folder, with the front matter model hubs read."""

from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml

from finetune_api.artifacts import PreparedManifest
from finetune_api.kinds.finetunejob.spec import MethodKind, Quantization
from finetune_api.run import RunConfig
from finetune_trainer import tasks
from finetune_trainer.evaluation.report import EvaluationReport
from finetune_trainer.model.structure import ModelStructure

_QUANTIZATION_CODE = {
    Quantization.NONE: "",
    Quantization.INT8: "BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules={skipped})",
    Quantization.NF4: 'BitsAndBytesConfig(\n        load_in_4bit=True, bnb_4bit_quant_type="nf4", '
    "bnb_4bit_use_double_quant=True,\n        llm_int8_skip_modules={skipped},\n    )",
}


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says beyond the configuration."""

    prepared: PreparedManifest
    report: EvaluationReport
    dtype: str
    structure: ModelStructure
    gguf_file: str | None
    step: int
    is_early_stopped: bool


def build_card(config: RunConfig, facts: CardFacts) -> str:
    """Render the model card."""
    spec, report, data = config.spec, facts.report, facts.prepared.data
    task = tasks.find_preparation(spec.task)
    is_adapter = spec.method.kind == MethodKind.LORA
    front_matter = {
        "base_model": spec.model.uri,
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": task.PIPELINE,
        "tags": ["finetune-operator", spec.method.kind.value.lower()],
    }
    # transformers doesn't quantize a GGUF file while it reads it.
    is_unpacked = is_adapter and facts.gguf_file is not None and spec.method.quantization != Quantization.NONE
    imported = {task.MODEL_CLASS, "AutoConfig"} | ({"AutoModelForCausalLM"} if is_unpacked else set())
    imported |= {"BitsAndBytesConfig"} if spec.method.quantization != Quantization.NONE else set()
    code = _QUANTIZATION_CODE[spec.method.quantization].format(skipped=facts.structure.unquantized)
    template = Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8")
    # Markdown for people who read the job anyway: nothing to escape.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    return environment.from_string(template).render(
        front_matter=yaml.safe_dump(front_matter, sort_keys=False).strip(),
        name=config.job.name,
        namespace=config.job.namespace,
        attempt=config.job.attempt,
        method=spec.method.kind.value,
        task=spec.task.value,
        base_uri=spec.model.uri,
        base_digest=facts.prepared.inputs[0].digest,
        quantization=spec.method.quantization.value if spec.method.quantization != Quantization.NONE else "unquantized",
        precision=report.precision.value,
        train_rows=data.train_rows,
        validation_rows=data.validation_rows,
        test_rows=data.test_rows,
        step=facts.step,
        is_early_stopped=facts.is_early_stopped,
        run_digest=facts.prepared.run_digest,
        rows=report.rows,
        split=report.split,
        base=report.base,
        tuned=report.tuned,
        labels=report.labels,
        samples=len(report.samples),
        is_adapter=is_adapter,
        model_class=task.MODEL_CLASS,
        answers=task.ANSWERS,
        has_untrained_head=task.HAS_OWN_HEAD and not facts.structure.has_trained_head,
        imported=sorted(imported),
        is_unpacked=is_unpacked,
        quantization_code=code,
        gguf_file=facts.gguf_file,
        dtype=facts.dtype,
    )
