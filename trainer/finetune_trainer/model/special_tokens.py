"""Texts of users that hold what a tokenizer or a chat template takes for control: counted, refused, or read as text.

Somebody who writes `<|im_end|>` into a question ends the turn with it, and `[INST]` opens one. Whether that is meant
only the user knows: `spec.training.specialTokensInText` says.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import SpecialTokensInText
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.samples import Sample
from finetune_trainer.model.chat_template import ChatTemplate, RefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTROL = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,40}\]")
"""How templates write what no word looks like."""
_CHAT_ROLES = frozenset({"system", "user", "assistant", "tool"})
_SHOWN_PLACES = 3


class Watch:
    """Looks at the texts of samples on their way to the tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", choice: SpecialTokensInText) -> None:
        special = [
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content
        ]
        self._choice = choice
        self._in_texts = _build_pattern(special)
        self._in_chats = _build_pattern([*special, *_find_control_texts(tokenizer)])
        self._places: dict[str, list[str]] = {}
        self._names: dict[str, None] = {}

    def iterate(self, samples: Iterable[tuple[str, Sample]], findings: Findings) -> Iterator[tuple[str, Sample]]:
        """Pass samples on with their splits.

        Args:
            samples: of all splits.
            findings: takes the samples that are refused.
        """
        for split, sample in samples:
            for part in sample.parts:
                pattern = self._in_chats if part.role in _CHAT_ROLES else self._in_texts
                found = pattern.search(part.text) if pattern else None
                if found is None:
                    continue
                self._names[found[0]] = None
                if self._choice == SpecialTokensInText.REFUSE:
                    findings.add(
                        sample.place,
                        f"{part.role} must not hold what stands for a special token ({wording.show_value(found[0])})",
                        "remove it, or set spec.training.specialTokensInText to Text or Warn.",
                    )
                self._places.setdefault(split, []).append(sample.place)
                break
            yield split, sample

    def build_warnings(self) -> list[str]:
        """Say how many rows of each split hold such texts."""
        is_text = self._choice == SpecialTokensInText.TEXT
        what = "are read as text" if is_text else "become those tokens; spec.training.specialTokensInText decides"
        return [
            f"{len(places)} {split} rows hold the text of special tokens ({wording.show_names(self._names)}), which"
            f" {what}; such as {', '.join(places[:_SHOWN_PLACES])}"
            for split, places in self._places.items()
        ]


def read_as_text(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Let a tokenizer take the text of special tokens for text from now on; those it adds itself stay."""
    tokenizer.split_special_tokens = True
    tokenizer.backend_tokenizer.encode_special_tokens = True


def _build_pattern(names: Iterable[str]) -> "re.Pattern[str] | None":
    ordered = sorted(set(names), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _find_control_texts(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return what the chat template writes around messages that looks like control."""
    if not tokenizer.chat_template:
        return []
    messages = [{"role": "user", "content": "Question?"}, {"role": "assistant", "content": "Answer."}]
    try:
        template = ChatTemplate(tokenizer)
        text = template.render(messages) + template.render(messages[:1], is_asking=True)
    except (RefusedError, ModelError):
        return []  # a task that needs the template has been told
    return _CONTROL.findall(text)
