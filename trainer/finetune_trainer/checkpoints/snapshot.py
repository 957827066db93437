"""A copy of a training between two steps, and the way back from its files.

The copy is what a training waits for; everything else happens beside it. Its memory is used again for the next one.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.modules.batchnorm import _BatchNorm

from finetune_trainer import whole_files
from finetune_trainer.checkpoints import state
from finetune_trainer.checkpoints.random_states import RandomState
from finetune_trainer.checkpoints.state import TrainingState

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A training's state in memory."""

    state: TrainingState
    weights: Tensors
    """What is trained, by name of the parameter."""
    optimizer: Tensors
    """Its moments, by `<parameter>.<key>`."""
    save_table: Callable[[Path], None]
    """Writes the metrics so far, as metrics.csv."""


class Buffers:
    """Memory that one snapshot after the other is copied into."""

    def __init__(self) -> None:
        self._tensors: Tensors = {}

    def copy(self, prefix: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """Copy tensors to the memory of the machine.

        Args:
            prefix: tells one set of tensors from another.
            tensors: by name; on any device.
        """
        copies = {}
        for name, tensor in tensors.items():
            key = f"{prefix}/{name}"
            copy = self._tensors.get(key)
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                # Pinned memory is what a GPU copies to without waiting for each tensor.
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self._tensors[key] = copy
            copy.copy_(tensor, non_blocking=True)
            copies[name] = copy
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        return copies


def find_weights(model: Any) -> Tensors:
    """Return what training changes, by name, sharing the model's memory: parameters, and running means of batches."""
    found = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            found |= {f"{prefix}.{name}": buffer for name, buffer in module.named_buffers(recurse=False)}
    return found


def find_moments(model: Any, optimizer: Any) -> Tensors:
    """Return an optimizer's state by `<parameter>.<key>`, sharing its memory.

    Args:
        model: whose parameters it steps.
        optimizer: of torch's kind; every value it keeps must be a tensor.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if not isinstance(value, torch.Tensor):
                raise AssertionError(f"the optimizer keeps {key} as {type(value).__name__}, which no checkpoint holds")
            found[f"{names[id(parameter)]}.{key}"] = value
    return found


def restore_weights(model: Any, path: Path, *, is_strict: bool = True) -> None:
    """Load what is trained from a file into a model, tensor by tensor.

    Args:
        model: to load into.
        path: of the file.
        is_strict: every weight must be in both. Several ranks leave out weights that no row goes through, one doesn't:
            where their number changes, those stay as the base has them.

    Raises:
        KeyError: the file holds others than the model trains.
    """
    trained = find_weights(model)
    with safe_open(path, "pt") as file, torch.no_grad():
        saved = set(file.keys())
        if is_strict:
            _compare(saved, set(trained), "weights")
        for name, parameter in trained.items():
            if name in saved:
                parameter.copy_(file.get_tensor(name))


def restore_moments(model: Any, optimizer: Any, folder: Path) -> None:
    """Load a checkpoint's moments into an optimizer that has not made a step.

    Raises:
        KeyError: a moment has no parameter.
    """
    if not (folder / state.OPTIMIZER).exists():
        return
    parameters = dict(model.named_parameters())
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    with safe_open(folder / state.OPTIMIZER, "pt") as file:
        keys = [name.rpartition(".") for name in file.keys()]  # noqa: SIM118 - the file itself is no mapping
        known = {name for name, parameter in parameters.items() if id(parameter) in stepped}
        # What has had no gradient yet has none.
        _compare({name for name, _, _ in keys} | known, known, "moments")
        for name, _, key in keys:
            parameter = parameters[name]
            optimizer.state[parameter][key] = file.get_tensor(f"{name}.{key}").to(parameter.device)


def _compare(found: set[str], wanted: set[str], what: str) -> None:
    if found != wanted:
        raise KeyError(f"a checkpoint's {what} must be those of the model; they differ in {sorted(found ^ wanted)[:5]}")


def write(snapshot: Snapshot, folder: Path) -> None:
    """Write a snapshot's files but for those that are there from the moment it was taken: best weights, generators.

    Raises:
        OSError, safetensors.SafetensorError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_make_contiguous(snapshot.weights), folder / state.WEIGHTS)
    if snapshot.optimizer:
        save_file(_make_contiguous(snapshot.optimizer), folder / state.OPTIMIZER)
    snapshot.save_table(folder / state.TABLE)
    (folder / state.STATE).write_text(snapshot.state.model_dump_json(by_alias=True), encoding="utf-8")


def keep_best(best: Path, folder: Path) -> None:
    """Give the file of the best weights a second name: it is never changed, only replaced by another."""
    folder.mkdir(parents=True, exist_ok=True)
    os.link(best, folder / state.BEST)


def _make_contiguous(tensors: Tensors) -> Tensors:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def write_random_state(random_state: RandomState, folder: Path, rank: int) -> None:
    """Write a rank's generators, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / state.name_random_file(rank)
    with whole_files.replacing(path) as partial:
        save_file(random_state, partial)


def load_random_state(folder: Path, rank: int) -> RandomState | None:
    """Read a rank's generators; None where that many ranks have not been there."""
    path = folder / state.name_random_file(rank)
    return load_file(path) if path.exists() else None
