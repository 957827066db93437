"""Files as they come: a refused one says what is wrong and what mends it, and mended so it is prepared."""

from pathlib import Path
from typing import Any

import bad_files
import pytest
from bad_files import BAD_FILES, ODD_FILES, BadFile, OddFile
from prepare_files import prepare_files

from finetune_api.errors import DataError


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.sentence)
def test_a_bad_file_is_refused_and_its_remedy_helps(case: BadFile, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare_files(case.files, case.columns, case.task, models, tmp_path / "bad")
    assert [words for words in case.want if words not in caught.value.message] == [], caught.value.message
    assert case.want_remedy in caught.value.remedy
    columns: Any = case.columns if case.mended_columns is None else case.mended_columns
    assert prepare_files(case.mend(case.files), columns, case.task, models, tmp_path / "mended").data.train_rows


@pytest.mark.parametrize("case", ODD_FILES, ids=lambda case: case.sentence)
def test_an_odd_file_is_read_and_said(case: OddFile, models: dict[str, Path], tmp_path: Path) -> None:
    prepared = prepare_files(case.files, case.columns, case.task, models, tmp_path)
    data = prepared.data
    assert data.train_rows + data.validation_rows + data.test_rows == case.want_rows
    said = "\n".join(prepared.warnings)
    assert [words for words in case.want_warning if words not in said] == [], said
    usual = {"60 training rows are few", "54 training rows are few", "55 training rows are few"}
    assert case.want_warning or [text for text in prepared.warnings if not text.startswith(tuple(usual))] == []


def test_the_corpus_is_large_and_each_of_its_files_is_small() -> None:
    assert len(BAD_FILES) >= 80
    assert len({case.sentence for case in (*BAD_FILES, *ODD_FILES)}) == len(BAD_FILES) + len(ODD_FILES)
    assert max(len(content) for case in BAD_FILES for content in case.files.values()) < 50_000
    assert len(bad_files.ROWS) == 60
