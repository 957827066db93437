"""Samples become the parquet files that the train stage reads, one for each split, in batches.

While a batch is tokenized, which takes no hold of the interpreter, the next one is read and the one before is written:
all cores have work. What is in flight is bounded by characters, not only by rows.

Shape of a prepared file, one row per sample: `row` int64, the row's index in its source from 0, and the columns the
task has, in its order: list<int32> of tokens (`input_ids`: T tokens of the sample, not padded), int32 of numbers. Its
column of targets is a number per row, or a list in which -100 marks tokens that are not learned.
"""

import contextlib
import functools
import itertools
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from finetune_api import artifacts
from finetune_trainer import signals
from finetune_trainer.data import deadlines
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.samples import IGNORED, Remark, Sample, TokenizedRow

_BATCH_ROWS = 4096
"""Most samples per call of the tokenizer (a choice)."""
_BATCH_CHARACTERS = 2**17
"""A batch with this many is full (a choice): its encodings take about 100 bytes a token, 3 MB in all."""
_GROUP_TOKENS = 2**18
"""A row group of the file with this many is full (a choice): 1 MB a column. Much smaller ones would add up: the writer
remembers each to the end."""
_ENCODING: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "use_byte_stream_split": True}
"""Token ids fill their lower bytes only: split by bytes they take half the time and three quarters of the space of a
dictionary (measured: SmolLM2, pyarrow 26)."""
_WORKERS = 2
"""Batches that are tokenized at the same time: while one is inside the tokenizer, on all cores, the other one becomes
arrays."""
_MAX_PLACES = 3
_AHEAD = _WORKERS + 1
"""Batches in flight before the oldest is awaited: one lies ready for the worker that is done first."""

_Lists: TypeAlias = "pyarrow.ListArray[Any]"
Tokenize: TypeAlias = Callable[[Sequence[Sample]], list[TokenizedRow]]


@dataclass(slots=True)
class TokenCounts:
    """What tokenizing a split came to."""

    lengths: "array[int]"
    """Tokens of each row after truncation."""
    num_truncated: int = 0
    num_learned: int = 0
    """Tokens that carry a label; rows, where rows do."""
    num_lost: int = 0
    """Tokens to learn that were cut off."""
    longest: int = 0
    """Tokens of the longest row before it was cut; 0 where nobody counted."""
    longest_unlearned: int = 0
    """The same, of the rows that are refused because nothing of them would be learned."""
    num_dropped: int = 0
    """Rows left out because nothing of them would be learned."""
    remarks: dict[Remark, list[str]] = field(default_factory=dict)
    """Places of the rows each remark is about; beyond `_MAX_PLACES` empty texts, so that they are counted."""

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Consecutive samples of one split, and the same tokenized."""

    split: str
    samples: list[Sample]
    """Of each row, the sample it was made of."""
    table: pyarrow.Table
    lengths: NDArray[numpy.int32]
    learned: NDArray[numpy.int64]
    rows: list[TokenizedRow]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a prepared file, and what the counts are taken from."""

    schema: pyarrow.Schema
    tokens: tuple[str, ...]
    """Columns whose tokens go through the model: a row is as long as all of them."""
    targets: str
    """Column of what is learned."""


def build_columns(example: TokenizedRow, tokens: tuple[str, ...], targets: str) -> Columns:
    """Return the columns of a file whose rows look like one of them."""
    lists = [(name, pyarrow.list_(pyarrow.int32())) for name in example.lists]
    numbers = [(name, pyarrow.int32()) for name in example.numbers]
    return Columns(pyarrow.schema([("row", pyarrow.int64()), *lists, *numbers]), tokens, targets)


def save_splits(
    folder: Path,
    samples: Iterable[tuple[str, Sample]],
    tokenize: Tokenize,
    columns: Columns,
    findings: Findings,
    *,
    is_dropping: bool = False,
    is_omitting: bool = False,
) -> dict[str, TokenCounts]:
    """Tokenize samples and write `<split>.parquet` for each split, in their order; one without samples has a file too.

    Args:
        folder: to write to.
        samples: of all splits, each with the name of its split.
        tokenize: turns a batch of samples into as many rows; called from several threads.
        columns: from `build_columns`.
        findings: takes the samples of which no token would be learned.
        is_dropping: leave those samples out instead.
        is_omitting: count the rows in whose tokens a part of the sample is missing, and don't refuse them.
    """
    counts = {split: TokenCounts(array("I")) for split in artifacts.SPLITS}
    with contextlib.ExitStack() as stack:
        writers = {
            split: stack.enter_context(_Writer(folder / f"{split}.parquet", columns.schema))
            for split in artifacts.SPLITS
        }
        for batch in _tokenize_ahead(_build_batches(samples), tokenize, columns):
            counted = counts[batch.split]
            signals.check(f"the tokenizing of {batch.split}.parquet at row {len(counted.lengths)}")
            if not is_omitting:
                _refuse_omissions(batch, findings)
            kept = _count(batch, counted, findings, is_dropping=is_dropping)
            writers[batch.split].add(kept)
    if unlearned := max(counted.longest_unlearned for counted in counts.values()):
        findings.remedies.append(
            f"set spec.training.maxLength to {unlearned}, which keeps all of them whole, shorten the prompts, or let"
            " spec.training.rowsWithoutTarget be Drop."
        )
    return counts


class _Writer(contextlib.AbstractContextManager["_Writer"]):
    """A file that gets its batches by the row group."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        self._file = pyarrow.parquet.ParquetWriter(path, schema, **_ENCODING)
        self._pending: list[pyarrow.Table] = []
        self._num_tokens = 0

    def add(self, batch: _Batch) -> None:
        self._pending.append(batch.table)
        self._num_tokens += int(batch.lengths.sum())
        if self._num_tokens >= _GROUP_TOKENS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pyarrow.concat_tables(self._pending))
        self._pending, self._num_tokens = [], 0

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._flush()
        self._file.close()


def _build_batches(samples: Iterable[tuple[str, Sample]]) -> Iterator[tuple[str, list[Sample]]]:
    pending: dict[str, list[Sample]] = {split: [] for split in artifacts.SPLITS}
    sizes = dict.fromkeys(artifacts.SPLITS, 0)
    for split, sample in samples:
        pending[split].append(sample)
        sizes[split] += sum(len(part.text) for part in sample.parts)
        if sizes[split] >= _BATCH_CHARACTERS or len(pending[split]) == _BATCH_ROWS:
            yield split, pending[split]
            pending[split], sizes[split] = [], 0
    yield from ((split, members) for split, members in pending.items() if members)


def _tokenize_ahead(
    batches: Iterable[tuple[str, list[Sample]]], tokenize: Tokenize, columns: Columns
) -> Iterator[_Batch]:
    """Yield the batches tokenized, in their order."""
    running: deque[tuple[str, Future[_Batch]]] = deque()
    turn = threading.Semaphore(_WORKERS)
    for split, members in batches:
        work = functools.partial(_build_batch, split, members, tokenize, columns)
        running.append((members[0].place, deadlines.start(work, turn)))
        if len(running) == _AHEAD:
            place, future = running.popleft()
            yield deadlines.wait(future, place)
    for place, future in running:
        yield deadlines.wait(future, place)


def _build_batch(split: str, samples: list[Sample], tokenize: Tokenize, columns: Columns) -> _Batch:
    rows = tokenize(samples)
    owners = [samples[index if row.sample is None else row.sample] for index, row in enumerate(rows)]
    arrays: dict[str, pyarrow.Array[Any]] = {"row": pyarrow.array([sample.row for sample in owners], pyarrow.int64())}
    by_identity: dict[tuple[int, ...], _Lists] = {}
    for name in rows[0].lists:
        lists = [row.lists[name] for row in rows]
        # Where everything is learned the labels are the tokens, the very same lists.
        key = tuple(map(id, lists))
        if key not in by_identity:
            by_identity[key] = _build_lists(lists)
        arrays[name] = by_identity[key]
    for name in rows[0].numbers:
        arrays[name] = pyarrow.array([row.numbers[name] for row in rows], pyarrow.int32())
    lengths = sum((_measure(arrays[name]) for name in columns.tokens), start=numpy.zeros(len(rows), numpy.int32))
    table = pyarrow.table([arrays[name] for name in columns.schema.names], schema=columns.schema)
    learned = _count_learned(arrays[columns.targets])
    return _Batch(split, owners, table, lengths, learned, rows)


def _build_lists(lists: Sequence[Sequence[int]]) -> _Lists:
    """Return lists as a column, through one flat array: pyarrow takes ten times as long over Python's lists."""
    offsets = numpy.zeros(len(lists) + 1, numpy.int32)
    numpy.cumsum(numpy.fromiter(map(len, lists), numpy.int32, len(lists)), out=offsets[1:])
    values = numpy.fromiter(itertools.chain.from_iterable(lists), numpy.int32, int(offsets[-1]))
    return pyarrow.ListArray.from_arrays(
        pyarrow.array(offsets, pyarrow.int32()), pyarrow.array(values, pyarrow.int32())
    )


def _measure(lists: Any) -> NDArray[numpy.int32]:
    lengths: NDArray[numpy.int32] = numpy.diff(lists.offsets.to_numpy())
    return lengths


def _count_learned(targets: Any) -> NDArray[numpy.int64]:
    """Count what is learned of each row: the row itself where it has one target."""
    if not pyarrow.types.is_list(targets.type):
        return numpy.ones(len(targets), numpy.int64)
    totals = numpy.concatenate([[0], numpy.cumsum(targets.values.to_numpy() != IGNORED)])
    ends = targets.offsets.to_numpy()
    learned: NDArray[numpy.int64] = totals[ends[1:]] - totals[ends[:-1]]
    return learned


def _refuse_omissions(batch: _Batch, findings: Findings) -> None:
    """Note the samples of which a part stands in none of the tokens; once, also where a sample became several rows."""
    previous = None
    for sample, row in zip(batch.samples, batch.rows, strict=True):
        if row.omitted and not row.problem and sample is not previous:
            findings.add(sample.place, row.omitted, row.remedy)
            previous = sample


def _count(batch: _Batch, counts: TokenCounts, findings: Findings, *, is_dropping: bool) -> _Batch:
    """Count a batch; return what is kept of it."""
    for sample, row in zip(batch.samples, batch.rows, strict=True):
        if row.problem:
            findings.add(sample.place, row.problem, row.remedy)
        for remark in (*row.remarks, Remark.OMITTED_TURN) if row.omitted else row.remarks:
            places = counts.remarks.setdefault(remark, [])
            places.append(sample.place if len(places) < _MAX_PLACES else "")
        counts.num_truncated += row.is_truncated
        counts.num_lost += row.num_lost
        counts.longest = max(counts.longest, row.num_whole)
    empty = batch.learned == 0
    for index in numpy.flatnonzero(empty).tolist() if not is_dropping else ():
        if batch.rows[index].problem:
            continue
        counts.longest_unlearned = max(counts.longest_unlearned, batch.rows[index].num_whole)
        findings.add(
            batch.samples[index].place,
            f"must keep a token to learn within spec.training.maxLength; all {batch.lengths[index]} tokens that were"
            " kept belong to the prompt",
        )
    if is_dropping and empty.any():
        counts.num_dropped += int(empty.sum())
        batch = _Batch(
            batch.split,
            batch.samples,
            batch.table.filter(pyarrow.array(~empty)),
            batch.lengths[~empty],
            batch.learned[~empty],
            batch.rows,
        )
    counts.lengths.frombytes(batch.lengths.tobytes())
    counts.num_learned += int(batch.learned.sum())
    return batch
