"""Rows become samples, and samples tokens and labels."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_trainer.data.columns import Shape
from finetune_trainer.data.labels import read_label
from finetune_trainer.data.values import check_text, read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "IGNORED",
    "Part",
    "Remark",
    "Sample",
    "Segment",
    "Shape",
    "TokenizedRow",
    "build_segments",
    "check_text",
    "encode_texts",
    "naming_panics",
    "read_label",
    "read_text",
]

IGNORED = -100
"""Label of a token that is not learned: PyTorch's default for `ignore_index`."""


class Remark(StrEnum):
    """What is said of rows that are learned all the same, counted."""

    MERGED_BORDER = "have a token that holds the end of the prompt and the beginning of the answer; it is learned"
    ONE_ANSWER = "teach one answer of a conversation, as in use: the template writes answers anew once others follow"
    OMITTED_TURN = "have a turn that the model's chat template leaves out; they are learned without it"
    OPENED_ANSWER = (
        "answer without the block that the model's chat template opens before an answer in use, as of reasoning"
    )
    ADDED_EMBEDDINGS = "have tokens that the model has no embedding for; it gets some, near the mean of the others"
    REPEATED_BOS = "begin with the text of the begin-of-text token, which the tokenizer adds too; one is kept"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sample: its role (`text`, `user`, `assistant` …) and its text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A checked row."""

    row: int
    """Index in its source, from 0."""
    place: str
    """File and line, for messages."""
    parts: tuple[Part, ...]
    labels: tuple[str, ...] = ()
    """The labels it names: one where the row has one, one per word where words have; none where a task has none."""


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """Tokens and targets of one sample, under the names of the columns they are written to."""

    lists: Mapping[str, list[int]]
    """Columns with a list per row: `input_ids`, and what else the task has."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Columns with a number per row, such as the id of its label."""
    is_truncated: bool = False
    sample: int | None = None
    """Index in its batch of the sample it was made of; None where samples and rows stand side by side."""
    num_whole: int = 0
    """Tokens before it was cut; 0 where nobody counted."""
    num_lost: int = 0
    """Tokens to learn that were cut off."""
    problem: str = ""
    """Why it can't be learned, found only when it was tokenized; its tokens mean nothing then."""
    remedy: str = ""
    omitted: str = ""
    """What of the sample stands in none of the tokens: refused, or counted as `Remark.OMITTED_TURN`."""
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of a row, all learned or none."""

    token_ids: list[int]
    is_learned: bool


def build_segments(token_ids: Sequence[int], labels: Sequence[int]) -> list[Segment]:
    """Cut a row where what is learned begins and ends; `labels` stands beside the tokens."""
    pairs = zip(token_ids, labels, strict=True)
    groups = itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORED)
    return [Segment([token for token, _ in group], is_learned) for is_learned, group in groups]


def encode_texts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, add_special_tokens: bool = True
) -> list[list[int]]:
    """Return the whole texts' token ids, as calling the tokenizer would.

    That would also find the place of each token in its text and wrap every answer: a fifth of the time (measured:
    SmolLM2, tokenizers 0.23).
    """
    backend = tokenizer.backend_tokenizer
    # Only changed where they are on: several threads use it.
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    with naming_panics():
        return [item.ids for item in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]


@contextlib.contextmanager
def naming_panics() -> Iterator[None]:
    """Blame the model where its tokenizer fails on a text: its patterns and tables come with it.

    Raises:
        ModelError: it does.
    """
    try:
        yield
    except BaseException as error:
        # A panic of the library is no Exception, and its class can't be imported; other failures are plain ones.
        if type(error).__name__ != "PanicException" and type(error) is not Exception:
            raise
        raise ModelError(
            f"spec.model.uri: the tokenizer must be able to encode texts; {wording.show_error(error)}",
            "upload tokenizer.json and tokenizer_config.json as the model's makers publish them.",
        ) from error
