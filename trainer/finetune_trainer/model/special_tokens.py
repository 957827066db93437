"""Texts of users that hold what a tokenizer or a chat template takes for control: counted, refused, or read as text.

Somebody who writes `<|im_end|>` into a question ends the turn with it, and `[INST]` opens one. Whether that is meant
only the user knows: `spec.training.specialTokensInText` says. What is a special token can be read as text; what the
template itself writes as text can't be told from it, whatever is asked for.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.kinds.finetunejob.spec import SpecialTokensInText
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.samples import Part, Sample
from finetune_trainer.model import control_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHAT_ROLES = frozenset({"system", "user", "assistant", "tool"})
_SHOWN_PLACES = 3
_REFUSED_REMEDY = "remove it, or set spec.training.specialTokensInText to Text or Warn."
_CONTROL_REMEDY = "remove it, or set spec.training.specialTokensInText to Warn."


class Watch:
    """Looks at the texts of samples on their way to the tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", choice: SpecialTokensInText) -> None:
        special = {
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content
        }
        control = control_texts.find_control_texts(tokenizer)
        self._choice = choice
        self._special = _Seen(_build_pattern(special))
        self._control = _Seen(_build_pattern(control.markup - special, control.headings))
        self._in_answers = _build_pattern(control.markup - special - control.answering, control.headings)

    def iterate(self, samples: Iterable[tuple[str, Sample]], findings: Findings) -> Iterator[tuple[str, Sample]]:
        """Pass samples on with their splits.

        Args:
            samples: of all splits.
            findings: takes the samples that are refused.
        """
        for split, sample in samples:
            self._look_for_special(split, sample, findings)
            self._look_for_control(split, sample, findings)
            yield split, sample

    def _look_for_special(self, split: str, sample: Sample, findings: Findings) -> None:
        found = next(((part, text) for part in sample.parts if (text := _find(self._special.pattern, part))), None)
        if found is None:
            return
        part, text = found
        self._special.record(split, sample, text)
        if self._choice == SpecialTokensInText.REFUSE:
            shown = wording.show_value(text)
            findings.add(
                sample.place, f"{part.role} must not hold what stands for a special token ({shown})", _REFUSED_REMEDY
            )

    def _look_for_control(self, split: str, sample: Sample, findings: Findings) -> None:
        for part in sample.parts:
            pattern = self._in_answers if part.role == "assistant" else self._control.pattern
            text = _find(pattern, part) if part.role in _CHAT_ROLES else ""
            if not text:
                continue
            self._control.record(split, sample, text)
            if self._choice != SpecialTokensInText.WARN:
                findings.add(
                    sample.place,
                    f"{part.role} must not hold what the chat template writes around messages"
                    f" ({wording.show_value(text)}): it is text there too, and can't be told apart",
                    _CONTROL_REMEDY,
                )
            return

    def build_warnings(self) -> list[str]:
        """Say how many rows of each split hold such texts."""
        is_text = self._choice == SpecialTokensInText.TEXT
        what = "are read as text" if is_text else "become those tokens; spec.training.specialTokensInText decides"
        return [
            *self._special.describe("the text of special tokens", f"which {what}"),
            *self._control.describe(
                "what the chat template writes around messages",
                "which the model reads as such; spec.training.specialTokensInText can refuse it",
            ),
        ]


class _Seen:
    """What was found, and in which rows."""

    def __init__(self, pattern: "re.Pattern[str] | None") -> None:
        self.pattern = pattern
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}
        self._names: dict[str, None] = {}

    def record(self, split: str, sample: Sample, text: str) -> None:
        self._names[text] = None
        self._counts[split] += 1
        places = self._places.setdefault(split, [])
        if len(places) < _SHOWN_PLACES:
            places.append(sample.place)

    def describe(self, what: str, then: str) -> list[str]:
        return [
            f"{self._counts[split]} {split} rows hold {what} ({wording.show_names(self._names)}), {then}; such as"
            f" {', '.join(places)}"
            for split, places in self._places.items()
        ]


def read_as_text(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Let a tokenizer take the text of special tokens for text from now on; those it adds itself stay."""
    tokenizer.split_special_tokens = True
    tokenizer.backend_tokenizer.encode_special_tokens = True


def _find(pattern: "re.Pattern[str] | None", part: Part) -> str:
    found = pattern.search(part.text) if pattern else None
    return found[0] if found else ""


def _build_pattern(names: Iterable[str], headings: Iterable[str] = ()) -> "re.Pattern[str] | None":
    """Match any of the names wherever it stands, and headings where a word begins."""
    ordered = [re.escape(name) for name in sorted(set(names), key=len, reverse=True)]
    ordered += [rf"(?<!\S){re.escape(heading)}" for heading in sorted(set(headings), key=len, reverse=True)]
    return re.compile("|".join(ordered)) if ordered else None
