"""Which objects share a value: an index as client-go's informers keep one. No I/O."""

from collections.abc import Sequence

from finetune_operator.runtime.kind import Key


class Index:
    """Objects by a value."""

    def __init__(self) -> None:
        self._values: dict[Key, str] = {}
        self._keys: dict[str, set[Key]] = {}

    def put(self, key: Key, value: str) -> None:
        """Set an object's value; empty: it has none."""
        if self._values.get(key, "") == value:
            return
        self.remove(key)
        if value:
            self._values[key] = value
            self._keys.setdefault(value, set()).add(key)

    def remove(self, key: Key) -> None:
        """Forget an object."""
        value = self._values.pop(key, "")
        keys = self._keys.get(value)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._keys[value]

    def list_peers(self, key: Key) -> Sequence[Key]:
        """Return the other objects with the same value."""
        return sorted(self._keys.get(self._values.get(key, ""), set()) - {key})
