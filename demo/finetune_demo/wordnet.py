"""Nouns and their definitions as rows for InstructionTuning.

Source: WordNet 3.0 (Princeton University, WordNet licence) in the Debian package `wordnet-base`. One row per synset,
from its first lemma: "Define the noun 'x'." and the definition without its usage examples.

Must never: let a noun or a definition stand in two rows, or copy the texts into the repository.
"""

import random

from finetune_demo import sources

NOUNS = sources.DebianFile(
    package="wordnet-base",
    path="usr/share/wordnet/data.noun",
    sha256="fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
)

_TEST_FRACTION = 0.2
_SPLIT_SEED = 13
_NUM_TRAIN_ROWS = 400  # One epoch takes about a minute on two CPU cores and is enough to teach the style.
_NUM_VALIDATION_ROWS = 50
_NUM_TEST_ROWS = 100


def build_definition_splits() -> dict[str, list[dict[str, str]]]:
    """Return the rows of train, validation and test: `prompt` and `completion`.

    The first fifth of the shuffled nouns is held out; each split is the beginning of its part.
    """
    rows = [
        {"prompt": f"Define the noun '{noun}'.", "completion": definition}
        for noun, definition in _definitions().items()
    ]
    random.Random(_SPLIT_SEED).shuffle(rows)  # noqa: S311 - a split has to be the same everywhere, not secret
    num_held_out = int(len(rows) * _TEST_FRACTION)
    pool = rows[num_held_out:]
    end = _NUM_TRAIN_ROWS + _NUM_VALIDATION_ROWS
    return {"train": pool[:_NUM_TRAIN_ROWS], "validation": pool[_NUM_TRAIN_ROWS:end], "test": rows[:_NUM_TEST_ROWS]}


def _definitions() -> dict[str, str]:
    """Return the definition of each noun, in the order of the file; the first sense of a noun counts."""
    definitions: dict[str, str] = {}
    seen: set[str] = set()
    # Format, see wndb(5WN): synset offset, file number, type, number of lemmas in hex, first lemma, … | gloss
    for line in sources.load_debian_file(NOUNS).read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):  # the licence stands at the top
            continue
        fields, _, gloss = line.partition(" | ")
        noun = fields.split(" ", 5)[4].replace("_", " ")
        definition = gloss.split('; "', 1)[0].strip()
        if noun not in definitions and definition not in seen:
            definitions[noun] = definition
            seen.add(definition)
    return definitions
