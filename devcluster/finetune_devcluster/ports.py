"""Free ports on loopback.

Ports come from below the range the kernel hands to outgoing connections (32768 and up on Linux, see
`net.ipv4.ip_local_port_range`), so that no client takes one between the choice and the start of the server, and from
below Kubernetes' node ports (30000 to 32767), which are rewritten before a server sees them.
"""

from __future__ import annotations

import random
import socket

_FIRST_PORT = 20000
_LAST_PORT = 29999


def choose_ports(count: int) -> list[int]:
    """Return `count` different ports on which nobody listens on 127.0.0.1 right now."""
    chosen: list[int] = []
    for port in random.sample(range(_FIRST_PORT, _LAST_PORT + 1), _LAST_PORT - _FIRST_PORT + 1):
        if len(chosen) == count:
            break
        if _is_free(port):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
