"""Constants of collective libraries as data (``topologies/libraries``): each is sourced, or fitted with its error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from cmsim import reading
from cmsim.libraries.tuner import TunerSpec
from cmsim.reading import FitNote, Spec
from cmsim.reading.kept import while_unchanged

FOLDER = "topologies/libraries"


class MeasuredRows(Spec):
    """A range that measured rows cover; ends belong to it."""

    of: str = Field(description="the accelerator that was measured")
    collectives: tuple[str, ...] = Field(default=(), description="of which there are rows; default: all four")
    ranks: tuple[float, float]
    per_domain: tuple[float, float] | None = Field(default=None, description="ranks of each domain, between domains")
    size_B: tuple[float, float] = Field(description="as nccl-tests prints it")


class LinkClass(Spec):
    """A generation of scale-up links: who has it, what the tuner believes of it, and the fitted constants."""

    accelerators: tuple[str, ...]
    port_GBps: float = Field(description="one direction of the first accelerator's port")
    rows: tuple[MeasuredRows, ...] = Field(description="what the constants were fitted to")
    kernel_rows: tuple[MeasuredRows, ...] = Field(default=(), description="what those of the kernels were fitted to")
    tuner_link_GBps: float = Field(description="one link, as the tuner counts it")
    tuner_generation: str
    constants: Mapping[str, float] = Field(description="cmsim.libraries.inside.DEFAULTS")
    kernels: Mapping[str, Mapping[str, float]] = Field(default={}, description="all-reduce kernels of serving engines")


class RingLibrary(Spec):
    """A library that goes round rings and trees on rank ports."""

    kind: Literal["ring"]
    name: str
    description: str
    versions: str
    tuner: TunerSpec
    classes: Mapping[str, LinkClass]
    common: Mapping[str, float] = Field(description="of links without rows of their own")
    transports: Mapping[str, Mapping[str, float]] = Field(description="between domains, by transport")
    between_rows: Mapping[str, tuple[MeasuredRows, ...]] = Field(description="what those were fitted to")
    fits: Mapping[str, FitNote]
    sources: Mapping[str, str]

    @property
    def short(self) -> str:
        """What people call it: its name without the version."""
        return self.name.partition("_")[0]


class LibraryName(Spec):
    """What a library calls an algorithm, and where it takes it."""

    pages: tuple[str, ...] = Field(description="names of the pages, of which a collective has one")
    also: tuple[str, ...] = Field(default=(), description="other spellings")
    levels: tuple[int, ...] = Field(description="0 inside a server, 1 between servers of a domain, 2 between domains")


class MeshLibrary(Spec):
    """A library that sends directly to every peer of one fabric."""

    kind: Literal["mesh"]
    name: str
    description: str
    versions: str
    accelerators: tuple[str, ...]
    rows: tuple[MeasuredRows, ...] = Field(description="what the constants were fitted to")
    constants: Mapping[str, float] = Field(description="cmsim.libraries.hccl.HCCL_DEFAULTS")
    names: Mapping[str, LibraryName] = Field(default={}, description="how the library calls the algorithms")
    fits: Mapping[str, FitNote]
    sources: Mapping[str, str]

    @property
    def short(self) -> str:
        """What people call it: its name without the version."""
        return self.name.partition("_")[0]


class LibraryNetwork(Spec):
    """How tables name a cluster, and what it is."""

    pattern: str = Field(description="regular expression, found anywhere in the name, capitals apart")
    system: str | None = Field(default=None, description="a file of topologies/ whose accelerator and domain it has")
    transport: str | None = None
    nic_GBps: float | None = Field(default=None, description="one accelerator's share, one direction")
    source: str


class NetworksFile(Spec):
    """How tables name clusters."""

    kind: Literal["names"]
    networks: tuple[LibraryNetwork, ...]


@while_unchanged(FOLDER)
def _paths() -> Mapping[str, Mapping[str, Path]]:
    """By kind and library the newest file: a new release is a new file, whose name sorts after the old one's."""
    out: dict[str, dict[str, Path]] = {}
    for name, path in reading.builtin_files(FOLDER).items():
        # the kind stands at the head: most runs need one file of all, and reading them takes longer than pricing
        kind = re.search(r"^kind: *(\w+)", reading.read_text(path), re.MULTILINE)
        out.setdefault(kind[1] if kind else "", {})[name.partition("_")[0]] = path
    return out


def libraries() -> tuple[str, ...]:
    """Names of the libraries, as a scenario's ``algorithm`` takes them."""
    return tuple(name for kind in ("ring", "mesh") for name in _paths()[kind])


def _first(kind: str) -> reading.Document:
    return reading.read_yaml(next(iter(_paths()[kind].values())))


@while_unchanged(FOLDER)
def _ring_libraries() -> tuple[RingLibrary, ...]:
    return tuple(reading.validate(RingLibrary, reading.read_yaml(path)) for path in _paths()["ring"].values())


def ring_library(accelerator: str = "") -> RingLibrary:
    """The constants of the library of rings and trees that an accelerator runs; of the first, where none names it."""
    found = _ring_libraries()
    named = (one for one in found if any(accelerator in link.accelerators for link in one.classes.values()))
    return next(named, found[0])


@while_unchanged(FOLDER)
def mesh_library() -> MeshLibrary:
    """The constants of the library of direct sends."""
    return reading.validate(MeshLibrary, _first("mesh"))


@while_unchanged(FOLDER)
def networks() -> tuple[LibraryNetwork, ...]:
    """Clusters as tables name them, the first match wins."""
    return reading.validate(NetworksFile, _first("names")).networks
