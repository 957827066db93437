"""Files as they come: a refused one says what is wrong and what mends it, and mended so it is prepared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bad_files
import pytest
from bad_files import BAD_FILES, ODD_FILES, BadFile, Files, OddFile

from finetune_api.artifacts import S3Address
from finetune_api.errors import DataError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.data import sources
from finetune_trainer.data.sources import LocalFile
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import tokenizer as tokenizer_of
from finetune_trainer.stages import prepare
from finetune_trainer.stages.prepare import Model, Prepared
from finetune_trainer.storage import RemoteFile

_MODELS = {"SequenceClassification": "encoder", "CausalLM": "decoder", "InstructionTuning": "decoder"}


def build_spec(task: str, columns: Mapping[str, str], splits: set[str]) -> FineTuneJobSpec:
    addresses = {split: {"uri": f"s3://data/{split}/"} for split in splits}
    return FineTuneJobSpec.model_validate(
        {
            "task": task,
            "model": {"uri": "s3://models/tiny/"},
            "data": [{"name": "d", **addresses, "columns": dict(columns)}],
            "training": {"maxLength": 64},
            "output": {"uri": "s3://runs/x"},
            "resources": {"gpus": 0, "memory": "4Gi"},
        }
    )


@pytest.fixture(scope="module")
def prepared_models(models: dict[str, Path]) -> dict[str, Model]:
    found = {}
    for kind, folder in models.items():
        source = build_spec("CausalLM", {}, {"train"}).model
        facts = base_model.load_facts(folder, None, source)
        found[kind] = Model(facts, tokenizer_of.load_tokenizer(folder, None, source))
    return found


def run(files: Files, columns: Mapping[str, str], task: str, models: dict[str, Model], scratch: Path) -> Prepared:
    """Choose, read and prepare files as the stage does, but for the store."""
    splits = {name.partition("/")[0] for name in files}
    spec = build_spec(task, columns, splits)
    local: dict[str, list[LocalFile]] = {}
    warnings: list[str] = []
    for split in sorted(splits):
        names = sorted(name.partition("/")[2] for name in files if name.startswith(f"{split}/"))
        remote = [RemoteFile(S3Address("data", f"{split}/{name}"), name, 1, "") for name in names]
        chosen, warned = sources.select_data_files(remote, f"spec.data[0].{split}.uri", f"s3://data/{split}/")
        warnings += warned
        local[split] = []
        for file in chosen:
            path = scratch / split / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[f"{split}/{file.name}"])
            local[split].append(LocalFile(path, file.name))
    folder = scratch / "prepared"
    folder.mkdir(parents=True)
    return prepare.prepare_rows(spec, models[_MODELS[task]], local, warnings, folder)


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.sentence)
def test_a_bad_file_is_refused_and_its_remedy_helps(
    case: BadFile, prepared_models: dict[str, Model], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        run(case.files, case.columns, case.task, prepared_models, tmp_path / "bad")
    assert [words for words in case.want if words not in caught.value.message] == [], caught.value.message
    assert case.want_remedy in caught.value.remedy
    columns: Any = case.columns if case.mended_columns is None else case.mended_columns
    assert run(case.mend(case.files), columns, case.task, prepared_models, tmp_path / "mended").data.train_rows


@pytest.mark.parametrize("case", ODD_FILES, ids=lambda case: case.sentence)
def test_an_odd_file_is_read_and_said(case: OddFile, prepared_models: dict[str, Model], tmp_path: Path) -> None:
    prepared = run(case.files, case.columns, case.task, prepared_models, tmp_path)
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
