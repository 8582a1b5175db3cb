"""What tables call things, and what their sources document: ``workloads/published`` as read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field

from cmsim import reading
from cmsim.published.case import NoPlan
from cmsim.reading import Spec
from cmsim.reading.kept import while_unchanged

FOLDER = "workloads/published"
MODELS = "workloads/models"


class Named(Spec):
    """A pattern of a text, and what the first one that is found means."""

    match: str = Field(description="a regular expression, searched for without regard to case")


class ModelName(Named):
    model: str = ""
    config: dict[str, Any] = Field(default={}, description="instead: the keys of a config.json")
    change: dict[str, Any] = Field(default={}, description="keys of the model's file to set over it")
    why: str = Field(default="", description="instead: why there is none")


class MachineName(Named):
    system: str = ""
    per_domain: int = Field(default=0, description="accelerators of a domain that jobs over several take; 0: all")
    set: dict[str, Any] = {}
    why: str = ""


class FormatName(Named):
    weights: str
    activations: str
    recipe: str = ""


class SizesName(Named):
    set: dict[str, Any] = Field(default={}, description="keys of a config.json that rows with sizes leave out")
    model: str = Field(default="", description="the built-in model whose other keys these are")


class NamesFile(Spec):
    """``names.yaml``."""

    models: tuple[ModelName, ...]
    sizes: tuple[SizesName, ...]
    machines: tuple[MachineName, ...]
    formats: tuple[FormatName, ...]


class RecipeRule(Spec):
    """What a source documents of rows that a pattern finds, or why they are left out."""

    of: dict[str, str] = Field(default={}, description="pattern by column; all must be found")
    set: dict[str, Any] = Field(
        default={}, description="dotted keys of the workload; `stack`: the software, a name in topologies/stacks"
    )
    why: str = ""
    taken: bool = Field(default=False, description="nobody states it of this run")
    left_out: str = ""
    flops: Literal["", "causal"] = Field(default="", description="how the source counts model FLOPs")
    corrected: dict[str, str] = Field(
        default={}, description="cells that the row's own source prints otherwise than the table: by column"
    )

    def holds(self, cells: Mapping[str, str]) -> bool:
        return all(re.search(pattern, cells.get(column, ""), re.IGNORECASE) for column, pattern in self.of.items())


class RecipesFile(Spec):
    """``recipes.yaml``: rules by form of table."""

    steps: tuple[RecipeRule, ...]
    vtrain: tuple[RecipeRule, ...]
    mosaic: tuple[RecipeRule, ...]
    mindspeed: tuple[RecipeRule, ...]
    mlperf: tuple[RecipeRule, ...]
    simumax: tuple[RecipeRule, ...]


NamedT = TypeVar("NamedT", bound=Named)


@while_unchanged(FOLDER)
def names() -> NamesFile:
    document = reading.read_yaml(reading.DATA / FOLDER / "names.yaml")
    return reading.validate(NamesFile, document)


@while_unchanged(FOLDER)
def recipes() -> RecipesFile:
    document = reading.read_yaml(reading.DATA / FOLDER / "recipes.yaml")
    return reading.validate(RecipesFile, document)


def found(lines: Iterable[NamedT], text: str, what: str) -> NamedT:
    """The first line whose pattern the text has. Raises NoPlan where none is found."""
    for line in lines:
        if re.search(line.match, text, re.IGNORECASE):
            return line
    raise NoPlan(f"no {what} known for '{text[:60]}'" if text else f"no {what} in the row")


@while_unchanged(MODELS)
def config_of(model: str) -> Mapping[str, Any]:
    """The keys of a built-in model's file."""
    loaded: Mapping[str, Any] = json.loads(reading.read_text(reading.builtin_files(MODELS, "*.json")[model]))
    return loaded
