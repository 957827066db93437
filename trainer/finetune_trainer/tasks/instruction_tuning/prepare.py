"""InstructionTuning: a model learns answers, each with its end of turn, and nothing of what was asked.

Rows come in the forms of `conversations`. Where the tokenizer has a chat template they are put into it (`rendering`);
else prompt and answer follow each other as they are. `encoding` makes tokens of the text, of which the answers are
learned, and each of them ends with the token at which the model is to stop.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_trainer.data import samples as dataset
from finetune_trainer.data.samples import IGNORED, Remark, Sample, TokenizedRow
from finetune_trainer.tasks import next_tokens_prepare
from finetune_trainer.tasks.instruction_tuning import conversations, encoding, rendering
from finetune_trainer.tasks.instruction_tuning.encoding import Encoded
from finetune_trainer.tasks.instruction_tuning.rendering import Rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS, TARGETS = next_tokens_prepare.TOKENS, next_tokens_prepare.TARGETS
MODEL_CLASS = next_tokens_prepare.MODEL_CLASS
ADAPTER_TASK = next_tokens_prepare.ADAPTER_TASK
HAS_OWN_HEAD = next_tokens_prepare.HAS_OWN_HEAD
PIPELINE, ANSWERS = next_tokens_prepare.PIPELINE, next_tokens_prepare.ANSWERS
build_segments = next_tokens_prepare.build_segments
fits_model = next_tokens_prepare.fits_model
build_model_arguments = next_tokens_prepare.build_model_arguments
is_packable = next_tokens_prepare.is_packable
predict_output_bytes = next_tokens_prepare.predict_output_bytes
SHAPES = conversations.SHAPES

parse_sample = conversations.parse_sample


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", columns: Mapping[str, str]) -> dict[str, str]:
    """Check that the tokenizer can render the rows and mark the end of an answer.

    Raises:
        ModelError: messages without a chat template, a template that fails or whose answers can't be found, or no
            end-of-text token.
    """
    next_tokens_prepare.check_stop_token(tokenizer)
    if not tokenizer.chat_template:
        needing = [role for role in ("messages", "system") if role in columns]
        if needing:
            raise ModelError(
                f"spec.model.uri: the tokenizer must have a chat template to train on {needing[0]}; it has none",
                "use an instruction-tuned model, or rows of prompt and completion.",
            )
        return {"chatTemplate": "none: prompt and answer as they are", "stopToken": str(tokenizer.eos_token)}
    probe = Sample(
        0, "", tuple(dataset.Part(role, text) for role, text in (("user", "Question?"), ("assistant", "Answer.")))
    )
    row = tokenize_batch([probe], tokenizer, 2**20, {})[0]
    learned = [token for token in row.lists["labels"] if token != IGNORED]
    if row.problem or "Answer." not in tokenizer.decode(learned):
        problem = row.problem or f"only {wording.quote(str(tokenizer.decode(learned)))} of it would be learned"
        raise ModelError(
            f"spec.model.uri: the chat template must let an answer be told from its question; {problem}",
            "use a model whose chat template renders one message after the other.",
        )
    digest = hashlib.sha256(rendering.find_template(tokenizer).source.encode()).hexdigest()
    return {"chatTemplate": f"sha256:{digest}", "stopToken": str(tokenizer.convert_ids_to_tokens(learned[-1]))}


def tokenize_batch(
    samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase", max_length: int, label_ids: Mapping[str, int]
) -> list[TokenizedRow]:
    """Turn samples into tokens, of which the answers and their ends of turn are labels; cut to `max_length`.

    A conversation becomes several rows where the chat template renders its answers anew once others follow.

    Raises:
        ModelError: the chat template fails.
    """
    del label_ids
    stop = _find_stop(tokenizer, str(tokenizer.chat_template)) if tokenizer.chat_template else None
    owned = [(number, item) for number, sample in enumerate(samples) for item in _render(sample, tokenizer, stop)]
    counts = Counter(number for number, _ in owned)
    head = [] if tokenizer.chat_template else _find_head(tokenizer)
    rows = []
    for (number, item), encoded in zip(owned, encoding.encode([item for _, item in owned], tokenizer), strict=True):
        if item.problem:
            nothing = {"input_ids": [tokenizer.eos_token_id], "labels": [tokenizer.eos_token_id]}
            rows.append(
                TokenizedRow(nothing, sample=number, problem=item.problem, remedy=rendering.describe(item.problem))
            )
        else:
            row = encoding.build_row(number, _end_answers(encoded, item, head, stop, tokenizer), max_length)
            rows.append(_remark(row, item, is_divided=counts[number] > 1))
    return rows


def _remark(row: TokenizedRow, item: Rendered, *, is_divided: bool) -> TokenizedRow:
    """Note what has to be said of a row that can be learned."""
    remarks = list(row.remarks)
    remarks += [Remark.ONE_ANSWER] if is_divided else []
    remarks += [Remark.OPENED_ANSWER] if item.is_opened else []
    remedy = rendering.describe_omitted(item.omitted) if item.omitted else ""
    return replace(row, remarks=tuple(remarks), omitted=item.omitted, remedy=remedy)


def _render(sample: Sample, tokenizer: "PreTrainedTokenizerBase", stop: int | None) -> list[Rendered]:
    if tokenizer.chat_template:
        template = rendering.find_template(tokenizer)
        return rendering.render_answers(sample, template, has_stop=stop is not None)
    prompt, answer = (part.text for part in sample.parts)
    spans = (0, len(prompt)), (len(prompt), len(prompt) + len(answer))
    return [Rendered(prompt + answer, (spans[1],), spans)]


@functools.lru_cache(maxsize=4)
def _find_stop(tokenizer: "PreTrainedTokenizerBase", source: str) -> int | None:
    """Return the token with which the chat template ends a turn; None where no single token is for that."""
    del source  # a changed template ends turns otherwise
    end = rendering.find_end(rendering.find_template(tokenizer)).rstrip()
    # Not by encoding it: that would set how the tokenizer reads special tokens from then on.
    fitting = {item.content: number for number, item in tokenizer.added_tokens_decoder.items()}
    name = max((name for name in fitting if name and end.endswith(name)), key=len, default="")
    return fitting.get(name)


def _end_answers(
    encoded: Encoded, item: Rendered, head: list[int], stop: int | None, tokenizer: "PreTrainedTokenizerBase"
) -> Encoded:
    """Put the begin-of-text token before a text without template, and see that a stop token ends its last answer."""
    ids, spans = encoded.ids, encoded.spans
    if head and ids[:1] == head:
        ids, spans = ids[1:], [(max(0, start - 1), end - 1) for start, end in spans]
    ids, spans = [*head, *ids], [(start + len(head), end + len(head)) for start, end in spans]
    if stop is None and spans and not item.text[item.spans[-1][1] :].strip():
        # Nothing of the template ends the answer, so the end of the text has to: else the model never stops.
        first, last = spans[-1]
        if ids[last - 1] != tokenizer.eos_token_id:
            ids, last = [*ids[:last], tokenizer.eos_token_id], last + 1
        spans = [*spans[:-1], (first, last)]
    return Encoded(ids, spans, encoded.is_merged)


def _find_head(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the begin-of-text token where the tokenizer puts one."""
    empty: list[int] = tokenizer("")["input_ids"]
    return empty[:1] if empty and empty[0] == tokenizer.bos_token_id else []
