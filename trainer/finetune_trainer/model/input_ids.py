"""Whether the model can take a tokenized row at all: its ids, its kinds of tokens, its stop tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import MethodKind
from finetune_trainer.data.samples import Remark, Sample, TokenizedRow
from finetune_trainer.model.structure import ModelStructure

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS, _TYPES = "input_ids", "token_type_ids"


def fit_rows(
    samples: Sequence[Sample],
    rows: Sequence[TokenizedRow],
    structure: ModelStructure,
    tokenizer: "PreTrainedTokenizerBase",
    method: MethodKind,
) -> list[TokenizedRow]:
    """Return tokenized rows as the model takes them, each with what is wrong with it.

    Kinds of tokens that the model doesn't tell apart are left out of all rows. Tokens that it has no embedding for are
    remarked upon where the method trains embeddings, so that it can be given some.

    Raises:
        ModelError: the tokenizer makes tokens that the model has no embedding for, and gets none.
    """
    stops = _count_usual_stops(samples, structure, tokenizer)
    fitted = []
    for index, row in enumerate(rows):
        sample = samples[index if row.sample is None else row.sample]
        known = _note_new_tokens(sample, row, structure, tokenizer, method)
        fitted.append(known if known.problem else _note_problem(known, stops, tokenizer))
    return [_leave_types_out(row) for row in fitted] if _has_fewer_types(rows, structure) else fitted


def count_tokens(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Count the embeddings that all of a tokenizer's tokens need; ids may leave gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def _note_new_tokens(
    sample: Sample,
    row: TokenizedRow,
    structure: ModelStructure,
    tokenizer: "PreTrainedTokenizerBase",
    method: MethodKind,
) -> TokenizedRow:
    largest = max(row.lists[_TOKENS], default=0)
    if not largest >= structure.num_embeddings > 0:
        return row
    if structure.can_grow and method == MethodKind.FULL:
        return replace(row, remarks=(*row.remarks, Remark.ADDED_EMBEDDINGS))
    token = wording.show_value(tokenizer.convert_ids_to_tokens(largest))
    grow = ", or set spec.method.kind to Full, which gives it embeddings and trains them" if structure.can_grow else ""
    raise ModelError(
        f"{sample.place}: token {token} ({largest}) must be one of the {structure.num_embeddings} that the model"
        f" has embeddings for; its tokenizer knows {len(tokenizer)}",
        f"upload the tokenizer that belongs to the model, or rows without that token{grow}.",
    )


def _note_problem(row: TokenizedRow, stops: int | None, tokenizer: "PreTrainedTokenizerBase") -> TokenizedRow:
    problem = _find_problem(row, stops, tokenizer)
    if "text of the stop token" in problem:
        return replace(row, problem=problem, remedy="remove it, or set spec.training.specialTokensInText to Text.")
    return replace(row, problem=problem)


def _find_problem(row: TokenizedRow, stops: int | None, tokenizer: "PreTrainedTokenizerBase") -> str:
    ids = row.lists[_TOKENS]
    if not ids:
        return "must leave a token; the tokenizer makes none of it"
    if stops is not None and ids.count(tokenizer.eos_token_id) != stops:
        token = wording.show_value(tokenizer.eos_token)
        return f"must not hold the text of the stop token {token}: the model's head reads the last one of a row"
    return ""


def _count_usual_stops(
    samples: Sequence[Sample], structure: ModelStructure, tokenizer: "PreTrainedTokenizerBase"
) -> int | None:
    """Count the stop tokens that the tokenizer puts into every row; None where they don't matter."""
    if not structure.reads_stop_token:
        return None
    texts = ["a"] * len(samples[0].parts)
    usual: list[int] = tokenizer(*texts)[_TOKENS]
    return usual.count(tokenizer.eos_token_id)


def _has_fewer_types(rows: Sequence[TokenizedRow], structure: ModelStructure) -> bool:
    if _TYPES not in rows[0].lists or structure.num_token_types is None:
        return False
    # Two kinds are what tokenizers make of pairs; that one batch has none of the second says nothing of the next.
    return structure.num_token_types < 2


def _leave_types_out(row: TokenizedRow) -> TokenizedRow:
    return replace(row, lists={name: values for name, values in row.lists.items() if name != _TYPES})
