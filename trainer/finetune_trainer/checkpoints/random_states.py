"""The state of every generator of random numbers a training draws from, as tensors that safetensors can hold.

Dropout draws from torch's generators, of the CPU and of this rank's GPU; the libraries may draw from Python's and
numpy's.
"""

import random

import numpy
import torch

RandomState = dict[str, torch.Tensor]
"""By name; a few kilobytes."""


def capture(device: torch.device) -> RandomState:
    """Copy the states of this process's generators.

    Args:
        device: this rank's.
    """
    version, internal, gauss_next = random.getstate()
    state = numpy.random.get_state(legacy=False)
    if (version, state["bit_generator"]) != (3, "MT19937"):
        raise AssertionError(f"unknown generators: {version}, {state['bit_generator']}")
    found = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(internal, dtype=torch.int64),
        "python_gauss": _pack(gauss_next),
        "numpy": torch.from_numpy(state["state"]["key"].astype(numpy.int64)),
        "numpy_position": torch.tensor([state["state"]["pos"], state["has_gauss"]], dtype=torch.int64),
        "numpy_gauss": _pack(state["gauss"]),
    }
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def restore(state: RandomState, device: torch.device) -> None:
    """Put the states back.

    Raises:
        KeyError: one is missing.
    """
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"].tolist()), _unpack(state["python_gauss"])))
    position, has_gauss = state["numpy_position"].tolist()
    keys = state["numpy"].numpy().astype(numpy.uint32)
    numpy.random.set_state(("MT19937", keys, position, has_gauss, _unpack(state["numpy_gauss"]) or 0.0))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _pack(value: float | None) -> torch.Tensor:
    """Hold a number that may be missing: no elements then."""
    return torch.tensor([] if value is None else [value], dtype=torch.float64)


def _unpack(tensor: torch.Tensor) -> float | None:
    return float(tensor[0]) if len(tensor) else None
