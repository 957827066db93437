"""Rendered conversations as tokens, which of them are learned, and how rows are cut.

The tokens are always those of the whole text, as a tokenizer gives them: what is encoded in pieces has blanks and
tokens that no text has. The mask is found by length or by the place of each token in the text, never by searching for
an id: in many models the end of a turn is the padding token too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_trainer.data import samples as dataset
from finetune_trainer.data.samples import IGNORED, Remark, TokenizedRow
from finetune_trainer.tasks.instruction_tuning.rendering import Rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a text, and the spans of those that are learned: first and last + 1 of each."""

    ids: list[int]
    spans: list[tuple[int, int]]
    is_merged: bool = False
    """Whether a token holds the end of a prompt and the beginning of its answer."""


def encode(items: Sequence[Rendered], tokenizer: "PreTrainedTokenizerBase") -> list[Encoded]:
    """Return the tokens of each text."""
    if tokenizer.split_special_tokens:
        return [_encode_contents_as_text(item, tokenizer) for item in items]
    prefixes = [item.text[:cut] for item in items for span in item.spans for cut in span]
    texts = [item.text for item in items]
    encoded = dataset.encode_texts(tokenizer, [*texts, *prefixes], add_special_tokens=False)
    wholes, heads = encoded[: len(items)], iter(encoded[len(items) :])
    results = []
    for item, ids in zip(items, wholes, strict=True):
        befores = [next(heads) for span in item.spans for _ in span]
        if all(ids[: len(before)] == before for before in befores):
            cuts = [len(before) for before in befores]
            results.append(Encoded(ids, list(zip(cuts[::2], cuts[1::2], strict=True))))
        else:
            results.append(_build(_encode_with_places(item.text, tokenizer), item))
    return results


_Placed = list[tuple[int, int, int]]
"""Tokens with the first and last + 1 character each stands for."""


def _encode_with_places(text: str, tokenizer: "PreTrainedTokenizerBase", shift: int = 0) -> _Placed:
    with dataset.naming_panics():
        found: Any = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    return [(token, start + shift, end + shift) for token, (start, end) in zip(found.ids, found.offsets, strict=True)]


def _build(placed: _Placed, item: Rendered) -> Encoded:
    """Learn every token that holds a character of an answer; one may begin before it."""
    spans = []
    is_merged = False
    for first, last in item.spans:
        held = [number for number, (_, start, end) in enumerate(placed) if end > first and start < last]
        if held:
            spans.append((held[0], held[-1] + 1))
            is_merged = is_merged or placed[held[0]][1] < first
    return Encoded([token for token, _, _ in placed], spans, is_merged)


def _encode_contents_as_text(item: Rendered, tokenizer: "PreTrainedTokenizerBase") -> Encoded:
    """Encode what messages hold without special tokens; those of the template stay what they are."""
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    placed: _Placed = []
    at = 0
    for start, end, name in _find_special(item, list(special)):
        placed += _encode_with_places(item.text[at:start], tokenizer, at)
        placed.append((special[name], start, end))
        at = end
    placed += _encode_with_places(item.text[at:], tokenizer, at)
    return _build(placed, item)


def _find_special(item: Rendered, names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return where special tokens stand outside of the messages' texts, from the left, the longest first."""
    found = []
    at = 0
    ordered = sorted(names, key=len, reverse=True)
    while at < len(item.text):
        inside = next((end for start, end in item.contents if start <= at < end), None)
        if inside is not None:
            at = inside
            continue
        name = next((name for name in ordered if name and item.text.startswith(name, at)), None)
        if name is not None:
            found.append((at, at + len(name), name))
        at += len(name) if name else 1
    return found


def build_row(number: int, encoded: Encoded, max_length: int) -> TokenizedRow:
    """Label what is learned and cut the row to `max_length`, counting what is lost."""
    tokens = encoded.ids
    labels = [IGNORED] * len(tokens)
    for start, end in encoded.spans:
        labels[start:end] = tokens[start:end]
    cut = labels[max_length:]
    return TokenizedRow(
        {"input_ids": tokens[:max_length], "labels": labels[:max_length]},
        is_truncated=len(tokens) > max_length,
        sample=number,
        num_whole=len(tokens),
        num_lost=len(cut) - cut.count(IGNORED),
        remarks=(Remark.MERGED_BORDER,) if encoded.is_merged else (),
    )
