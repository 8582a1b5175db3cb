"""Keys that take bytes or tokens: numbers, or text with a prefix, read by `cmsim.units.size`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic_core import core_schema

from cmsim import units


@dataclass(frozen=True)
class Size:
    """Marks a field as a number of bytes or of tokens, so that ``64K`` and ``1 KiB`` are read there."""

    of: Literal["bytes", "tokens"]

    @property
    def example(self) -> str:
        """Of a text that is read, for the reference."""
        return "1 KiB" if self.of == "bytes" else "64K"

    def read(self, value: Any) -> Any:
        """Text as its number; anything else as it is. Raises ValueError for text that is no size."""
        return units.size(value, of=self.of) if isinstance(value, str) else value

    def known(self, value: Any) -> Any:
        """The number where the value is text that is read as one; else the value, of which its field complains."""
        try:
            return self.read(value)
        except ValueError:
            return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        text = {"type": "string", "pattern": r"^[0-9][0-9.eE+-]* ?[A-Za-z]{0,3}$"}
        return {"anyOf": [handler(schema), text]}


def size_at(spec: Any, path: Sequence[str]) -> Size | None:
    """What the key at a path of a spec counts, where it is a size."""
    fields = getattr(spec, "model_fields", {})
    if not path or path[0] not in fields:
        return None
    field = fields[path[0]]
    if len(path) == 1:
        marks = [*field.metadata, *_marks(field.annotation)]
        return next((one for one in marks if isinstance(one, Size)), None)
    return next((found for inner in _models(field.annotation) if (found := size_at(inner, path[1:]))), None)


def _marks(annotation: Any) -> Iterator[Any]:
    """What an annotation is marked with, inside a union too."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from annotation.__metadata__
    if origin in (Annotated, typing.Union, types.UnionType):
        for arg in typing.get_args(annotation):
            yield from _marks(arg)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for arg in typing.get_args(annotation):
        yield from _models(arg)
