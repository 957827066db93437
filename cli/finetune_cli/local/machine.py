"""What this machine has, as its own programs say it: PyTorch is not imported to ask."""

import shutil
import subprocess

_TIMEOUT_SECONDS = 20.0
"""Of NVIDIA's program (a choice): the first question after a start takes it some seconds."""


def count_gpus() -> int:
    """Return the number of NVIDIA's GPUs that the driver lists; 0 where there is no driver or it doesn't answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run(
            [program, "--list-gpus"], capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
