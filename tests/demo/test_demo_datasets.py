"""The rows of the examples: real counts, clean splits, the same bytes everywhere."""

import json
from collections import Counter
from pathlib import Path

import pytest

from finetune_demo import baseline, datasets, files


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _splits(paths: dict[str, Path]) -> dict[str, Path]:
    return {path.stem: path for path in paths.values()}


def test_movie_splits_hold_the_promised_rows_and_balance(movie_files: dict[str, Path]) -> None:
    counts = {split: Counter(row["label"] for row in _rows(path)) for split, path in _splits(movie_files).items()}
    assert counts == {
        "train": {"negative": 1037, "positive": 963},
        "validation": {"negative": 193, "positive": 207},
        "test": {"negative": 1015, "positive": 999},
    }


def test_noun_splits_hold_the_promised_rows(noun_files: dict[str, Path]) -> None:
    rows = {split: _rows(path) for split, path in _splits(noun_files).items()}
    assert {split: len(found) for split, found in rows.items()} == {"train": 400, "validation": 50, "test": 100}
    assert rows["test"][2] == {
        "prompt": "Define the noun 'Dalai Lama'.",
        "completion": "chief lama and once ruler of Tibet",
    }


def test_bible_splits_hold_the_promised_lines_of_prose(bible_files: dict[str, Path]) -> None:
    lines = {split: path.read_text(encoding="utf-8").splitlines() for split, path in _splits(bible_files).items()}
    assert {split: len(found) for split, found in lines.items()} == {"train": 300, "validation": 30, "test": 60}
    assert not [line for found in lines.values() for line in found if "{" in line or not line.strip()]


@pytest.mark.parametrize("fixture", ["movie_files", "noun_files", "bible_files"])
def test_no_text_stands_in_two_splits_or_twice_in_one(fixture: str, request: pytest.FixtureRequest) -> None:
    paths: dict[str, Path] = request.getfixturevalue(fixture)
    assert len(paths) == 3
    lines = [line for path in paths.values() for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [next(iter(json.loads(line).values())) if line.startswith("{") else line for line in lines]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def test_no_definition_of_the_test_rows_is_trained_on(noun_files: dict[str, Path]) -> None:
    splits = _splits(noun_files)
    trained = {row["completion"] for row in _rows(splits["train"])}
    assert not [row for row in _rows(splits["test"]) if row["completion"] in trained]


def test_a_second_build_gives_the_same_bytes(movie_files: dict[str, Path], tmp_path: Path) -> None:
    again = datasets.build_example_data("movie-sentiment", tmp_path)
    assert {key: path.read_bytes() for key, path in again.items()} == {
        key: path.read_bytes() for key, path in movie_files.items()
    }


def test_a_whole_file_is_used_again_and_a_damaged_one_is_written_anew(
    bible_files: dict[str, Path], tmp_path: Path
) -> None:
    paths = datasets.build_example_data("domain-text", tmp_path)
    train, test = paths["datasets/bible/train.txt"], paths["datasets/bible/test.txt"]
    kept = train.stat().st_ino
    test.write_bytes(test.read_bytes()[:100])
    datasets.build_example_data("domain-text", tmp_path)
    assert train.stat().st_ino == kept
    assert test.read_bytes() == bible_files["datasets/bible/test.txt"].read_bytes()


def test_rows_that_differ_from_the_pinned_ones_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    target = tmp_path / "train.jsonl"
    with pytest.raises(files.DigestMismatchError, match=r"train\.jsonl \(sha256 [0-9a-f]{64}\) must have sha256 0000"):
        files.save_bytes(b"other rows\n", target, "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_example_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"example \(movies\) must be one of movie-sentiment, "):
        datasets.build_example_data("movies", tmp_path)


def test_word_counts_reach_what_the_documentation_says(movie_files: dict[str, Path]) -> None:
    splits = _splits(movie_files)
    accuracy = baseline.tfidf_accuracy(splits["train"], splits["test"])
    assert accuracy == pytest.approx(0.725, abs=0.01)  # the slack: another scikit-learn


def test_the_command_prints_every_file_with_its_rows(
    movie_files: dict[str, Path],
    model_files: dict[str, Path],
    data_directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    datasets.main([str(data_directory), "movie-sentiment"])
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(printed) == set(movie_files) | {key for key in model_files if key.startswith("models/minilm/")}
    assert printed["datasets/movies/test.jsonl"] == "2,014 rows"


def test_the_command_ends_with_one_line_for_an_unknown_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        datasets.main([str(tmp_path), "films"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: example (films) must be one of ")
