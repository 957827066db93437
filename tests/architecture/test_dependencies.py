"""The one set of versions: constraints.txt fits pyproject.toml, and nothing names a package registry."""

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def _read_constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (
        re.fullmatch(r"([a-z0-9._-]+)==(\S+)(?: ;.*)?", line) for line in lines if line and not line.startswith("#")
    )
    return {pin[1]: pin[2] for pin in pins if pin}


def _read_requirements() -> list[Requirement]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    texts = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        texts += extra
    for group in settings["dependency-groups"].values():
        texts += group
    return [Requirement(text) for text in texts]


def test_every_requirement_is_pinned_once_and_its_pin_fits() -> None:
    pins = _read_constraints()
    requirements = _read_requirements()
    misfits = [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(pins.get(requirement.name.lower().replace("_", "-"), "missing"))
    ]
    assert misfits == []
    assert len(requirements) > 30


def test_every_line_of_the_constraints_is_an_exact_pin() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert [line for line in lines if "==" not in line] == []
    assert len(_read_constraints()) == len(lines)


def test_boto3_is_of_this_decade() -> None:
    """A resolver that meets a conflict over python-dateutil silently picks boto3 0.0.3."""
    assert _read_constraints()["boto3"].startswith("1.4")


def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile(r"(pypi\.org|pythonhosted|registry\.npmjs|proxy\.golang|deb\.debian\.org|crates\.io)")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    this = Path(__file__).relative_to(ROOT)
    found = [
        name
        for name in files
        if Path(name) != this and (ROOT / name).is_file() and hosts.search((ROOT / name).read_text(errors="replace"))
    ]
    assert found == []
    assert len(files) > 40
