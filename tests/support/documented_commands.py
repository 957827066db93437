"""The commands of the Markdown pages as a reader copies them, and the shell that runs them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find_fences(page: Path) -> list[tuple[str, str]]:
    """Return language and text of every fenced block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def find_blocks(page: str, language: str = "sh") -> list[str]:
    """Return the fenced blocks of a language in a page, by its path in the checkout."""
    return [text for found, text in find_fences(ROOT / page) if found == language]


def find_commands(block: str) -> list[str]:
    """Return the lines after a `$` of a console block; the rest is what they print."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def split_commands(block: str) -> list[list[str]]:
    """Return the commands of a block as words, continued lines joined and comments left out."""
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@dataclass(frozen=True)
class Shell:
    """A bash in a folder, with the programs of this environment and of the given folders."""

    folder: Path
    programs: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, commands: str) -> "subprocess.Popen[str]":
        """Start commands of which every one has to succeed."""
        path = [str(item) for item in (*self.programs, Path(sys.executable).parent)]
        variables = {"PATH": os.pathsep.join([*path, os.environ["PATH"]])}
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=os.environ | variables | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: "subprocess.Popen[str]") -> str:
        """Wait for the end, which must be a success; return what was printed."""
        try:
            printed, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == 0, printed
        return printed

    def run(self, commands: str) -> str:
        """Run commands to their end."""
        return self.finish(self.start(commands))


def link_checkout(folder: Path) -> Path:
    """Make a folder that looks like the checkout; what commands write stays in it."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name != "build":
            (folder / entry.name).symlink_to(entry)
    return folder
