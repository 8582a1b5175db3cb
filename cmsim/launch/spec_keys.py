"""Which keys this version's workloads have, and which words they take."""

from __future__ import annotations

import typing
from typing import Any

from cmsim import kinds


class SpecKeys:
    """Which keys this version's workloads of a kind have."""

    def __init__(self, kind: str = "training") -> None:
        self.spec = kinds.get(kind).spec

    def has(self, *path: str) -> bool:
        spec: Any = self.spec
        for key in path:
            found = getattr(spec, "model_fields", {}).get(key)
            if found is None:
                return False
            spec = _spec_of(found.annotation)
        return True

    def words(self, key: str) -> set[str]:
        """Values of a key of few words."""
        found = self.spec.model_fields.get(key)
        return set(_literals(found.annotation)) if found is not None else set()

    def of_list(self, *path: str) -> set[str]:
        """Words that a key takes in a list."""
        spec: Any = self.spec
        for key in path[:-1]:
            spec = _spec_of(spec.model_fields[key].annotation) if key in getattr(spec, "model_fields", {}) else None
        found = getattr(spec, "model_fields", {}).get(path[-1])
        return set(_listed(found.annotation)) if found is not None else set()


def _literals(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(one) for one in typing.get_args(annotation)]
    return [word for one in typing.get_args(annotation) for word in _literals(one)]


def _listed(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) in (list, tuple):
        return _literals(annotation)
    return [word for one in typing.get_args(annotation) for word in _listed(one)]


def _spec_of(annotation: Any) -> Any:
    """The class of keys in an annotation, None beside it or not."""
    return next((one for one in (annotation, *typing.get_args(annotation)) if hasattr(one, "model_fields")), annotation)
