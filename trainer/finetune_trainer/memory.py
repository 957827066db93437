"""How much memory a training will take, by plain arithmetic, and the micro-batch that fits into what there is.

The prediction is meant to be right within 15 %; below about 1 GiB the libraries outweigh the model. It counts the
longest row, not the mean: that is the one that fails. The micro-batch is the largest part of a batch that fits.
"""

import math
from dataclasses import dataclass

from finetune_api.spec import FineTuneJobSpec, MethodKind, Precision, Quantization
from finetune_trainer import base_model
from finetune_trainer.base_model import ModelFacts

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
_CPU_SHARE = 0.9
"""Part of the pod's memory a training may plan with (a choice): the kernel ends what goes over it."""
_UNKNOWN_GPU_BATCH = 8
"""Largest micro-batch where the GPU's memory isn't known yet (a choice)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a training is expected to take, in bytes."""

    weights: int
    training: int
    """Gradients, moments and copies of what is trained."""
    activations: int
    """Of one micro-batch of the longest row."""
    logits: int
    fixed: int

    @property
    def peak(self) -> int:
        """All of it, with what fragmentation adds."""
        return int((self.weights + self.training + self.activations + self.logits) * _FRAGMENTATION) + self.fixed


@dataclass(frozen=True, slots=True)
class Batching:
    """How the rows of one optimizer step are put through the model, per rank."""

    micro_batch_size: int
    gradient_accumulation: int


def count_trainable(facts: ModelFacts, spec: FineTuneJobSpec) -> int:
    """Count the parameters that are trained; a new head is left out, it is small.

    LoRA adds rank times the sum of both sides to each linear layer: https://arxiv.org/abs/2106.09685, section 4.1.
    """
    match spec.method.kind:
        case MethodKind.FULL:
            return facts.num_parameters
        case MethodKind.LORA:
            targeted = base_model.match_linear(facts, spec.method.lora.target_modules)
            return sum(spec.method.lora.rank * sum(shape) for shape in targeted.values())
        case MethodKind.HEAD_ONLY:
            return facts.hidden_size * facts.hidden_size


def predict_peak(
    facts: ModelFacts, spec: FineTuneJobSpec, micro_batch_size: int, longest: int, num_outputs: int | None = None
) -> Prediction:
    """Predict the memory of the train stage per rank.

    Args:
        facts: of the base model.
        spec: of the run.
        micro_batch_size: rows at once.
        longest: tokens of the longest row.
        num_outputs: labels of a classifier; None for a language model, which has an output per token and vocabulary.
    """
    is_gpu = spec.resources.gpus > 0
    half = spec.training.precision == Precision.BFLOAT16 or (is_gpu and spec.training.precision == Precision.AUTO)
    width = _BFLOAT16_BYTES if half else _FLOAT32_BYTES
    is_frozen = spec.method.kind != MethodKind.FULL
    linear = sum(map(math.prod, facts.linear_shapes.values()))
    trainable = count_trainable(facts, spec)
    # What is trained is kept in float32 whatever the precision: small steps would be lost in bfloat16.
    base_width = width if is_frozen else _FLOAT32_BYTES
    quantized = _QUANTIZED_BYTES.get(spec.method.quantization)
    weights = (facts.num_parameters - linear) * base_width + linear * (quantized or base_width)
    adapter = trainable * _FLOAT32_BYTES if is_frozen else 0
    tokens = micro_batch_size * longest
    # trainer.md's estimate per token and layer, in units of one bfloat16 element's 2 bytes.
    per_layer = (8 * facts.hidden_size + 4 * facts.intermediate_size) * width
    layers = facts.num_layers if spec.method.kind != MethodKind.HEAD_ONLY else 1
    outputs = tokens * facts.vocabulary_size if num_outputs is None else micro_batch_size * num_outputs
    return Prediction(
        weights=int(weights) + adapter,
        training=trainable * (_FLOAT32_BYTES + _ADAM_BYTES),
        activations=tokens * per_layer * max(1, layers),
        logits=outputs * _LOGIT_BYTES[width],
        fixed=_LIBRARIES_BYTES["cuda" if is_gpu else "cpu"]
        + (_CPU_QUANTIZATION_BYTES if quantized and not is_gpu else 0),
    )


def plan_batching(
    facts: ModelFacts, spec: FineTuneJobSpec, longest: int, memory_bytes: int | None, num_outputs: int | None = None
) -> tuple[Batching, Prediction]:
    """Choose the largest micro-batch that divides a rank's share of the batch and fits into the memory.

    The smallest one is returned where none fits; compare its prediction with the memory.

    Args:
        facts: of the base model.
        spec: of the run; its batch size is divisible by its number of GPUs.
        longest: tokens of the longest row.
        memory_bytes: of the device; None where it isn't known, as for a GPU that nobody has seen yet.
        num_outputs: labels of a classifier; None for a language model.
    """
    share = spec.training.batch_size // max(1, spec.resources.gpus)
    divisors = [size for size in range(share, 0, -1) if share % size == 0]
    if memory_bytes is None:
        divisors = [size for size in divisors if size <= _UNKNOWN_GPU_BATCH]
    for size in divisors:
        prediction = predict_peak(facts, spec, size, longest, num_outputs)
        if size == 1 or memory_bytes is None or prediction.peak <= memory_bytes * _CPU_SHARE:
            return Batching(size, share // size), prediction
    raise AssertionError("1 divides every batch")
