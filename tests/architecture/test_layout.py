"""Where things lie: one package per code folder, no traps for imports, modules of readable size, import contracts."""

import operator
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE_FOLDERS = ("api", "operator", "trainer", "cli", "devcluster", "demo")
FOLDERS_OF_OTHER_THINGS = {"devcluster": {"binaries"}}
MAX_MODULE_LINES = 500


def _read_settings() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _find_modules() -> list[Path]:
    return [path for folder in CODE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_a_code_folder_holds_exactly_its_one_package(folder: str) -> None:
    found = {path.name for path in (ROOT / folder).iterdir() if not path.name.startswith((".", "__"))}
    assert found - FOLDERS_OF_OTHER_THINGS.get(folder, set()) == {f"finetune_{folder}"}


def test_the_wheel_lists_the_packages_of_the_product_and_no_others() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert listed == [f"{folder}/finetune_{folder}" for folder in ("api", "operator", "trainer", "cli")]
    assert all((ROOT / path / "__init__.py").is_file() for path in listed)


def test_the_folder_named_operator_does_not_hide_the_standard_library() -> None:
    assert Path(operator.__file__).is_relative_to(sysconfig.get_path("stdlib"))


def test_tests_are_no_packages_and_their_names_are_unique() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert [path for path in files if path.name == "__init__.py"] == []
    names = [path.name for path in files]
    assert sorted(names) == sorted(set(names))
    assert len(files) > 10


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    found = [path for path in _find_modules() if path.stem in sys.stdlib_module_names]
    assert found == []


def test_no_module_is_longer_than_five_hundred_lines() -> None:
    others = [path for folder in ("tests", "benchmarks", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    modules = [*_find_modules(), *others]
    long = {str(path): lines for path in modules if (lines := len(path.read_text().splitlines())) > MAX_MODULE_LINES}
    assert long == {}
    assert len(modules) > 200


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
    assert [path for path in _find_modules() if path.stem in empty_names] == []


def test_every_module_says_what_lives_in_it() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _find_modules()
        if path.read_text().strip() and not path.read_text().lstrip().startswith('"""')
    ]
    assert silent == []


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
