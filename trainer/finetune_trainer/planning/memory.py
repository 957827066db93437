"""How much memory a training will take, by plain arithmetic, and the micro-batch that fits into what there is.

The prediction is meant to be right within 15 %; below about 1 GiB the libraries outweigh the model. A micro-batch is a
number of tokens, padding included; it holds the longest row at least, since that is the one that fails.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind, Precision, Quantization
from finetune_trainer.model import architectures, fit
from finetune_trainer.model.facts import ModelFacts

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskPreparation

_FLOAT32_BYTES = 4
_BFLOAT16_BYTES = 2
_ADAM_BYTES = 8
"""Two float32 moments per trained parameter (https://arxiv.org/abs/1412.6980, algorithm 1)."""
# Bytes per weight of a quantized linear layer. NF4 with double quantization: 4 bits and 0.127 bits of constants
# (https://arxiv.org/abs/2305.14314, section 3), measured as 0.52.
_QUANTIZED_BYTES = {Quantization.INT8: 1.0, Quantization.NF4: 0.52}
_LIBRARIES_BYTES = {"cpu": 900 * 2**20, "cuda": 2**30}
"""Measured on the CPU with a model of 23M parameters, 2026-11: resident memory beyond the model's own parts. On a GPU
about 1 GiB of CUDA context and libraries."""
_CPU_QUANTIZATION_BYTES = 600 * 2**20
"""Measured in the same way: what bitsandbytes takes on top on the CPU, where it works on unpacked copies."""
_FRAGMENTATION = 1.08
"""Published experience is 5 to 10 %."""
_LOGIT_BYTES = {_BFLOAT16_BYTES: 10, _FLOAT32_BYTES: 20}
"""Per logit, by the width of the model's output: the output, the part with labels as float32, its softmax, and the
gradients of both where they are not computed in place."""
_CHUNK_COPIES = 3
"""Where logits are never there whole (`losses.chunked_lm_head`): product, float32 copy and gradient of one chunk."""
_USABLE_SHARE = 0.9
"""Part of the memory a training may plan with (a choice): what goes over it ends the run."""
MOST_TOKENS = {"cpu": 2048, "cuda": 16_384}
"""Largest micro-batches (choices): more tokens at once are no faster. On a CPU they outgrow its caches; a GPU's matrix
units are busy from a few thousand on."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a training is expected to take, in bytes."""

    weights: int
    training: int
    """Gradients, moments and copies of what is trained."""
    activations: int
    """Of one micro-batch."""
    outputs: int
    """What the task's head gives, such as logits, with their loss and gradient."""
    fixed: int

    @property
    def peak(self) -> int:
        """All of it, with what fragmentation adds."""
        return int((self.weights + self.training + self.activations + self.outputs) * _FRAGMENTATION) + self.fixed


def count_trainable(facts: ModelFacts, spec: FineTuneJobSpec) -> int:
    """Count the parameters that are trained; a new head is left out, it is small.

    LoRA adds rank times the sum of both sides to each linear layer: https://arxiv.org/abs/2106.09685, section 4.1.
    """
    match spec.method.kind:
        case MethodKind.FULL:
            return facts.num_parameters
        case MethodKind.LORA:
            targeted = fit.match_linear(facts.linear_shapes, spec.method.lora.target_modules)
            return sum(spec.method.lora.rank * sum(shape) for shape in targeted.values())
        case MethodKind.HEAD_ONLY:
            return facts.hidden_size * facts.hidden_size


def predict_logit_bytes(facts: ModelFacts, tokens: int, width: int, device: str) -> int:
    """Predict what the logits of a language model, their loss and its gradient take.

    Args:
        facts: of the base model.
        tokens: of a micro-batch.
        width: bytes of an element of the output.
        device: `cpu` or `cuda`.
    """
    logits = tokens * facts.vocabulary_size * _LOGIT_BYTES[width]
    is_plain = facts.model_type in architectures.PLAIN_HEADS
    return min(logits, _CHUNK_COPIES * HEAD_CHUNK_BYTES[device]) if is_plain else logits


def predict_peak(facts: ModelFacts, spec: FineTuneJobSpec, task: "TaskPreparation", tokens: int) -> Prediction:
    """Predict the memory of the train stage per rank.

    Args:
        facts: of the base model.
        spec: of the run.
        task: of the run.
        tokens: of a micro-batch.
    """
    is_gpu = spec.resources.gpus > 0
    device = "cuda" if is_gpu else "cpu"
    half = spec.training.precision == Precision.BFLOAT16 or (is_gpu and spec.training.precision == Precision.AUTO)
    width = _BFLOAT16_BYTES if half else _FLOAT32_BYTES
    is_frozen = spec.method.kind != MethodKind.FULL
    trainable = count_trainable(facts, spec)
    # What is trained is kept in float32 whatever the precision: small steps would be lost in bfloat16.
    base_width = width if is_frozen else _FLOAT32_BYTES
    quantized = _QUANTIZED_BYTES.get(spec.method.quantization)
    # Beside quantized layers everything is kept in float32.
    other_width = _FLOAT32_BYTES if quantized else base_width
    num_quantized = facts.num_quantizable if quantized else 0
    weights = (facts.num_parameters - num_quantized) * other_width + num_quantized * (quantized or 0)
    adapter = trainable * _FLOAT32_BYTES if is_frozen else 0
    # trainer.md's estimate per token and layer, in units of one bfloat16 element's 2 bytes.
    per_layer = (8 * facts.hidden_size + 4 * facts.intermediate_size) * width
    layers = facts.num_layers if spec.method.kind != MethodKind.HEAD_ONLY else 1
    return Prediction(
        weights=int(weights) + adapter,
        training=trainable * (_FLOAT32_BYTES + _ADAM_BYTES),
        activations=tokens * per_layer * max(1, layers),
        outputs=task.predict_output_bytes(facts, tokens, width, device),
        fixed=_LIBRARIES_BYTES[device] + (_CPU_QUANTIZATION_BYTES if quantized and not is_gpu else 0),
    )


def plan_micro_batch(
    facts: ModelFacts, spec: FineTuneJobSpec, task: "TaskPreparation", longest: int, memory_bytes: int | None
) -> tuple[int, Prediction]:
    """Choose the tokens of a micro-batch: as many as help and fit into the memory, the longest row at least.

    Args:
        facts: of the base model.
        spec: of the run.
        task: of the run.
        longest: tokens of the longest row.
        memory_bytes: of the device; None where it isn't known, as for a GPU that nobody has seen yet.

    Returns:
        The tokens and the prediction for them; compare that with the memory, since the longest row may not fit.
    """
    # A micro-batch has no more rows than a rank takes of a step.
    share = math.ceil(spec.training.batch_size / max(1, spec.resources.gpus))
    tokens = max(longest, min(share * longest, MOST_TOKENS["cuda" if spec.resources.gpus else "cpu"]))
    while True:
        prediction = predict_peak(facts, spec, task, tokens)
        if tokens == longest or memory_bytes is None or prediction.peak <= memory_bytes * _USABLE_SHARE:
            return tokens, prediction
        tokens = max(longest, tokens // 2)


HEAD_CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 512 * 2**20}
"""Of the logits of a language model that are in memory at once, in float32 (choices): on a CPU they should stay near
its caches, a GPU wants large products."""
