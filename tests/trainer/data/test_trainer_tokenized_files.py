"""The prepared files: every row in its place, batches bounded, and what is said of rows that teach nothing."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from sample_rows import make_samples

from finetune_api.errors import DataError
from finetune_trainer.data import tokenized_files
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.samples import Sample, TokenizedRow

SPLITS = ("train", "validation", "test")
LANGUAGE = TokenizedRow({"input_ids": [1], "labels": [1]})
PAIR = TokenizedRow({"input_ids": [1], "token_type_ids": [0]}, {"label": 0})


def tokenize_letters(samples: Sequence[Sample]) -> list[TokenizedRow]:
    """Make a token of each letter, and learn all but the first."""
    return [
        TokenizedRow(
            {
                "input_ids": [ord(letter) for letter in sample.parts[0].text],
                "labels": [-100, *[1] * (len(sample.parts[0].text) - 1)],
            },
            is_truncated=len(sample.parts[0].text) > 4,
        )
        for sample in samples
    ]


def save(
    folder: Path,
    samples: Iterable[tuple[str, Sample]],
    tokenize: tokenized_files.Tokenize = tokenize_letters,
    findings: Findings | None = None,
    example: TokenizedRow = LANGUAGE,
) -> tuple[dict[str, tokenized_files.TokenCounts], dict[str, pyarrow.Table]]:
    """Write samples, and read the files."""
    targets = "labels" if "labels" in example.lists else "label"
    columns = tokenized_files.build_columns(example, ("input_ids",), targets)
    counts = tokenized_files.save_splits(folder, samples, tokenize, columns, findings or Findings())
    return counts, {split: pyarrow.parquet.read_table(folder / f"{split}.parquet") for split in SPLITS}


def test_each_split_is_written_in_the_order_of_its_rows(tmp_path: Path) -> None:
    samples = make_samples(["ab" + "c" * (n % 5) for n in range(25_000)])
    splits = [SPLITS[sample.row % 10 // 8] for sample in samples]
    counts, tables = save(tmp_path, zip(splits, samples, strict=True))
    tokens = pyarrow.list_(pyarrow.int32())
    assert [(field.name, field.type) for field in tables["train"].schema] == [
        ("row", pyarrow.int64()),
        ("input_ids", tokens),
        ("labels", tokens),
    ]
    for split in SPLITS[:2]:
        rows = [sample.row for name, sample in zip(splits, samples, strict=True) if name == split]
        assert tables[split]["row"].to_pylist() == rows
        assert tables[split]["input_ids"].to_pylist() == [[97, 98, *[99] * (row % 5)] for row in rows]
        assert tables[split]["labels"].to_pylist() == [[-100, *[1] * (row % 5 + 1)] for row in rows]
        assert list(counts[split].lengths) == [2 + row % 5 for row in rows]
    train = counts["train"]
    # Of every ten rows 0 to 7 are train's, with 2 to 6 tokens; those with more than 4 count as truncated.
    assert (train.num_tokens, train.num_learned, train.num_truncated) == (2500 * 29, 2500 * 21, 2500 * 2)


def test_splits_without_rows_have_files_too(tmp_path: Path) -> None:
    counts, tables = save(tmp_path, [], example=PAIR)
    for split in SPLITS:
        names = ["row", "input_ids", "token_type_ids", "label"]
        assert (tables[split].num_rows, tables[split].column_names) == (0, names)
        assert counts[split].num_tokens == 0


def test_labelled_pairs_have_a_label_and_token_types(tmp_path: Path) -> None:
    def tokenize(samples: Sequence[Sample]) -> list[TokenizedRow]:
        return [
            TokenizedRow({"input_ids": [1, 2, 3], "token_type_ids": [0, 1, 1]}, {"label": sample.row})
            for sample in samples
        ]

    samples = [("train", sample) for sample in make_samples(["a", "b"])]
    counts, tables = save(tmp_path, samples, tokenize, example=PAIR)
    assert tables["train"].to_pylist() == [
        {"row": row, "input_ids": [1, 2, 3], "label": row, "token_type_ids": [0, 1, 1]} for row in range(2)
    ]
    assert counts["train"].num_learned == 2


def test_tokens_that_are_their_own_labels_are_all_learned(tmp_path: Path) -> None:
    def tokenize(samples: Sequence[Sample]) -> list[TokenizedRow]:
        return [TokenizedRow({"input_ids": (ids := [5] * (sample.row + 1)), "labels": ids}) for sample in samples]

    counts, tables = save(tmp_path, [("test", sample) for sample in make_samples(["a", "b"])], tokenize)
    assert tables["test"]["labels"].to_pylist() == tables["test"]["input_ids"].to_pylist() == [[5], [5, 5]]
    assert counts["test"].num_learned == 3


def test_rows_of_which_nothing_would_be_learned_are_findings(tmp_path: Path) -> None:
    findings = Findings()
    samples = make_samples(["ab", "c", "de", "f"])
    save(tmp_path, zip(("train", "train", "test", "test"), samples, strict=True), findings=findings)
    told = "must keep a token to learn within spec.training.maxLength; all 1 tokens that were kept belong to the prompt"
    assert findings.kept == [f"t.jsonl line 2: {told}", f"t.jsonl line 4: {told}"]


def test_the_samples_in_memory_are_bounded_by_their_characters(tmp_path: Path) -> None:
    text = "x" * 100_000
    waiting, most = 0, 0

    def draw() -> Iterator[tuple[str, Sample]]:
        nonlocal waiting, most
        for sample in make_samples([text] * 60):
            waiting += len(text)
            most = max(most, waiting)
            yield "train", sample

    def tokenize(samples: Sequence[Sample]) -> list[TokenizedRow]:
        nonlocal waiting
        waiting -= len(text) * len(samples)
        return [TokenizedRow({"input_ids": [1], "labels": [1]}) for _ in samples]

    save(tmp_path, draw(), tokenize)
    assert most <= 5 * 300_000


def test_what_is_wrong_with_a_batch_ends_the_writing(tmp_path: Path) -> None:
    def tokenize(samples: Sequence[Sample]) -> list[TokenizedRow]:
        raise DataError(f"{samples[0].place}: must be accepted", "correct it.")

    samples = make_samples(["x"] * 20_000)
    with pytest.raises(DataError, match=r"t\.jsonl line 1: must be accepted"):
        save(tmp_path, (("train", sample) for sample in samples), tokenize)
