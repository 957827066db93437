"""What package clients inside an image build need to know of this machine: its certificates, index and cache.

Some machines reach package indexes only through a mirror or with a certificate bundle of their own. pip and uv are
told so by files mounted during the build alone: an image keeps at most the empty files they were mounted on, and the
Dockerfiles need no line for it. Must never print what it reads: an index URL may hold a password.
"""

from __future__ import annotations

import configparser
import json
import os
import tomllib
from pathlib import Path
from typing import Any

from finetune_devcluster import cache

_CERTIFICATES = Path("/etc/ssl/certs")  # the same place on this machine and in every Debian image
_BUNDLE = _CERTIFICATES / "ca-certificates.crt"
_PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_UV_FILES = ("/etc/uv/uv.toml", "~/.config/uv/uv.toml")
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout")
_UV_OPTIONS = ("index-url", "extra-index-url")


def save_build_volumes(directory: Path) -> list[str]:
    """Write the settings files into `directory` and return the mounts of a build, as `source:target:options`."""
    downloads = cache.cache_directory() / "package-downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    volumes = [f"{downloads}:/root/.cache:rw"]
    if _BUNDLE.exists():
        # The folder, not the bundle alone: OpenSSL looks for single certificates by their hash.
        volumes.append(f"{_CERTIFICATES}:{_CERTIFICATES}:ro")
    for name, target, content in (
        ("pip.conf", "/etc/pip.conf", _build_pip_settings()),
        ("uv.toml", "/etc/uv/uv.toml", _build_uv_settings()),
    ):
        if content:
            file = directory / name
            file.touch(mode=0o600)
            file.write_text(content)
            volumes.append(f"{file}:{target}:ro")
    return volumes


def _build_pip_settings() -> str:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read([os.environ.get("PIP_CONFIG_FILE", ""), *(Path(file).expanduser() for file in _PIP_FILES)])
    chosen = {option: parser.get("global", option, fallback="") for option in _PIP_OPTIONS}
    # The environment wins, as it does in pip itself.
    chosen |= {option: value for option in _PIP_OPTIONS if (value := os.environ.get(_variable("PIP", option)))}
    if _BUNDLE.exists():
        chosen["cert"] = str(_BUNDLE)
    lines = [f"{option} = {value}" for option, value in chosen.items() if value]
    return "\n".join(["[global]", *lines, ""]) if lines else ""


def _build_uv_settings() -> str:
    settings: dict[str, Any] = {}
    for name in _UV_FILES:
        if (file := Path(name).expanduser()).exists():
            settings |= {key: value for key, value in tomllib.loads(file.read_text()).items() if key in _UV_OPTIONS}
    for option in _UV_OPTIONS:
        if value := os.environ.get(_variable("UV", option)):
            settings[option] = value.split() if option.startswith("extra") else value
    if _BUNDLE.exists():
        settings["native-tls"] = True
    # Strings, lists of strings and `true` look the same in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def _variable(prefix: str, option: str) -> str:
    return f"{prefix}_{option.replace('-', '_').upper()}"
