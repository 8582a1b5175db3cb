"""A system put together: its own file, its accelerator's and its stack's, with overrides laid on top."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmsim import markup, reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import beside
from cmsim.hardware.common_parts import as_built
from cmsim.hardware.link_table import Cable
from cmsim.hardware.power import carried
from cmsim.hardware.specs import AcceleratorSpec, Assumed, Source, SystemSpec
from cmsim.hardware.stacks import StackSpec
from cmsim.units import GB, GIGA, TERA

SYSTEMS, ACCELERATORS, STACKS = "topologies", "topologies/accelerators", "topologies/stacks"

#: stacks laid over each other
_MOST_EXTENDED = 32
#: ranks of all domains together
_MOST_RANKS = 2**22


@dataclass(frozen=True)
class System:
    """One or several domains of accelerators with the software that runs on them.

    Rates with the suffix ``rank`` are what one rank (a die or a package, as ``spec.rank`` says) has.

    Attributes
    ----------
    name
        What tables call it.
    spec
        The system file, checked.
    accelerator
        The accelerator's file, checked; rates in it are of a package.
    stack
        The software's file, checked.
    packages
        How many accelerators are used, over all domains.
    texts
        Text of every file that was read, by its path.
    links
        Cables of one domain, where the wiring is a table of links.
    notes
        What was decided for the user, in sentences.
    """

    name: str
    spec: SystemSpec
    accelerator: AcceleratorSpec
    stack: StackSpec
    packages: int
    texts: Mapping[str, str] = field(repr=False, default_factory=dict)
    #: of one domain, where the wiring is a table of links
    links: tuple[Cable, ...] = field(repr=False, default=())
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<System {self.name}: {self.packages} accelerators, {self.ranks} ranks>"

    @property
    def ranks_per_package(self) -> int:
        """Dies where a rank is a die, else 1."""
        return self.accelerator.dies if self.spec.rank == "die" else 1

    @property
    def ranks(self) -> int:
        """Ranks of all packages in use."""
        return self.packages * self.ranks_per_package

    @property
    def domains(self) -> int:
        """Domains in use (the last may be partly filled)."""
        return -(-self.packages // self.spec.accelerators)

    @property
    def nodes(self) -> int:
        """Nodes in use (the last may be partly filled)."""
        return -(-self.packages // self.spec.node.accelerators)

    @property
    def rank_memory_B(self) -> float:
        """Memory of one rank. [B]"""
        return self.accelerator.memory_GB * self.accelerator.memory_reported * GB / self.ranks_per_package

    @property
    def rank_memory_Bps(self) -> float:
        """Memory bandwidth of one rank. [B/s]"""
        return self.accelerator.memory_GBps * GIGA / self.ranks_per_package

    @property
    def rank_vector_FLOPps(self) -> float:
        """Peak of the vector units of one rank. [FLOP/s]"""
        return self.accelerator.vector_TFLOPps * TERA / self.ranks_per_package

    def rank_peak_FLOPps(self, precision: str) -> float:
        """Dense peak of the matrix units of one rank. [FLOP/s]

        Parameters
        ----------
        precision
            ``bf16``, ``fp8``, ...: a key of ``accelerator.peak_TFLOPps``.

        Returns
        -------
        float
            Operations in a second, a multiply-add counted as two. [FLOP/s]

        Raises
        ------
        InputError
            Where the chip has no such unit.
        """
        peaks = self.accelerator.peak_TFLOPps
        if precision not in peaks:
            raise InputError(
                f"{self.accelerator.name} has no {precision} peak. {did_you_mean(precision, [str(p) for p in peaks])}"
            )
        return peaks[precision] * TERA / self.ranks_per_package

    @property
    def digest(self) -> str:
        """Hash of everything that decides a result, for the manifest."""
        parts = [self.spec, self.accelerator, self.stack]
        said = [part.model_dump(mode="json") for part in parts]
        # the order of dimensions is the order of ranks, and a table of links is not in the system file
        beside = [list(getattr(self.spec.scale_up, "dimensions", ())), *([self.links] if self.links else [])]
        text = json.dumps([*said, self.packages, *(one for one in beside if one)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def sources(self) -> list[tuple[str, str, Source]]:
        """Where every sourced number is from.

        Returns
        -------
        list of (str, str, Source)
            File, key, and the source's text or an assumed range.
        """
        return [
            (name, key, source)
            for name, spec in (
                (self.spec.name, self.spec),
                (self.accelerator.name, self.accelerator),
                (self.stack.name, self.stack),
            )
            for key, source in spec.sources.items()
        ]

    def assumed(self) -> list[tuple[str, str, Assumed]]:
        """Numbers that nobody printed.

        Returns
        -------
        list of (str, str, Assumed)
            File, key, and the range that is assumed, with the reason.
        """
        return [(name, key, source) for name, key, source in self.sources() if isinstance(source, Assumed)]

    def _repr_html_(self) -> str:
        spec = self.spec
        rows = {
            "accelerators": f"{self.packages} x {self.accelerator.name} ({self.ranks} ranks)",
            "fabric": spec.scale_up.wiring,
            "stack": self.stack.name,
            "memory": f"{self.packages * self.accelerator.memory_GB / 1000:.1f} TB",
        }
        return markup.table(list(rows.items()), title=self.name, about=spec.description, align="left")


def load_system(
    name: str,
    *,
    accelerators: int | None = None,
    domains: int | None = None,
    rank: str | None = None,
    stack: str | None = None,
    set: Mapping[str, Any] | None = None,
    label: str | None = None,
    base: Path | None = None,
    kind: str | None = None,
) -> System:
    """A system by name, alias or path, with a scenario's overrides.

    Parameters
    ----------
    name
        A built-in name or alias, or the path of a YAML file.
    accelerators
        Packages in use, over all domains; default: all.
    domains
        Domains joined by the scale-out network; default: as the file says. Of each of several, jobs take the file's
        ``job_accelerators`` where these suffice and ``set`` does not give ``accelerators``.
    rank
        ``die`` or ``package``; default: as the file says.
    stack
        Name or path of another software stack.
    set
        Dotted keys over the system file or, with the prefix ``accelerator.`` or ``stack.`` and a key below, over
        those files.
    label
        What tables call it; default: its own name.
    base
        Folder that relative paths start from.
    kind
        Kind of the workload that is to run, for which the file may give another stack.

    Returns
    -------
    System
        Checked, with the texts of the files that were read.

    Raises
    ------
    InputError
        With file, line, key and what is allowed: for a name there is not, a value that cannot be, and more
        accelerators than there are.
    """
    document = _open(name, SYSTEMS, "system", base)
    texts = {document.file: document.text}
    data = reading.merge(document.data, {})
    part_overrides: dict[str, dict[str, Any]] = {"accelerator": {}, "stack": {}}
    for key, value in (set or {}).items():
        part, _, below = key.partition(".")
        if part in part_overrides and below:
            part_overrides[part][below] = value
        else:
            data = _with(data, key, value, document.file)
    if domains is not None:
        data = _with(data, "domains", domains, document.file)
    if rank is not None:
        data = _with(data, "rank", rank, document.file)
    spec = as_built(reading.validate(SystemSpec, document, data=data))
    notes: tuple[str, ...] = ()
    if spec.domains > 1 and "accelerators" not in (set or {}):
        spec, notes = _for_jobs(spec, accelerators)

    chip_document = _open(spec.accelerator, ACCELERATORS, "accelerator", base)
    texts[chip_document.file] = chip_document.text
    chip_data = chip_document.data
    for key, value in part_overrides["accelerator"].items():
        chip_data = _with(chip_data, key, value, chip_document.file)
    chip = carried(
        reading.validate(AcceleratorSpec, chip_document, data=chip_data),
        chip_document,
        lambda kin: _own(_noted(_open(kin, ACCELERATORS, "accelerator", base), texts)),
    )

    stack_document = _open(stack or spec.stack_for(kind or ""), STACKS, "stack", base)
    texts[stack_document.file] = stack_document.text
    laid = stack_data(stack_document, base, texts)
    by_accelerator = laid.get("accelerators")
    own = by_accelerator.get(chip.name) if isinstance(by_accelerator, dict) else None
    if isinstance(own, dict):  # what is none is refused with the rest of the file
        laid = reading.merge(laid, own)
    for key, value in part_overrides["stack"].items():
        laid = _with(laid, key, value, stack_document.file)
    stack_spec = reading.validate(StackSpec, stack_document, data=laid)

    spec, links = beside.read(
        spec, document, ranks=spec.accelerators * (chip.dies if spec.rank == "die" else 1), texts=texts
    )

    there = spec.accelerators * spec.domains
    if (ranks := there * chip.dies) > _MOST_RANKS:
        message = f"{there} accelerators of {chip.dies} dies are {ranks} ranks; allowed: up to {_MOST_RANKS}"
        raise InputError(document.problem(("accelerators",), message))
    packages = there if accelerators is None else accelerators
    if not 0 < packages <= there:
        raise InputError(
            Problem(f"got {packages}; {spec.name} has 1 to {there} ({spec.domains} domain(s))", key="accelerators")
        )
    if links and packages % spec.accelerators:
        message = f"got {packages}; a custom fabric is used whole: multiples of {spec.accelerators}"
        raise InputError(Problem(message, key="accelerators"))
    return System(label or spec.name, spec, chip, stack_spec, packages, texts, links, notes)


def _for_jobs(spec: SystemSpec, packages: int | None) -> tuple[SystemSpec, tuple[str, ...]]:
    """Domains of as many packages as jobs over several of them take, and a note; whole ones where more are asked."""
    taken, whole = spec.job_accelerators, spec.accelerators
    if not taken or taken >= whole or (packages or 0) > taken * spec.domains:
        return spec, ()
    note = (
        f"a job over {spec.domains} domains takes {taken} of the {whole} accelerators of each, as operators do; "
        f"`set: {{accelerators: {whole}}}` takes all"
    )
    return spec.model_copy(update={"accelerators": taken}), (note,)


def load_stack(name: str, *, base: Path | None = None) -> StackSpec:
    """One stack by name, alias or path, with what it says for all accelerators."""
    document = _open(name, STACKS, "stack", base)
    return reading.validate(StackSpec, document, data=stack_data(document, base))


def stack_data(
    document: reading.Document,
    base: Path | None = None,
    texts: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A stack's data over those of the stacks it extends; ``texts`` takes what was read."""
    data = dict(document.data)
    name = data.get("extends")
    seen = {document.file}
    while isinstance(name, str):
        below = _open(name, STACKS, "stack", base)
        if below.file in seen:
            raise InputError(document.problem(("extends",), f"stacks extend each other in a circle: {below.file}"))
        seen.add(below.file)
        if len(seen) > _MOST_EXTENDED:
            message = f"more than {_MOST_EXTENDED} stacks extend each other"
            raise InputError(document.problem(("extends",), message))
        if texts is not None:
            texts[below.file] = below.text
        name = below.data.get("extends")
        data = reading.merge({key: value for key, value in below.data.items() if key != "aliases"}, data)
    return data


def load_accelerator(name: str, *, base: Path | None = None) -> AcceleratorSpec:
    """One accelerator by name, alias or path, with all its watts."""
    document = _open(name, ACCELERATORS, "accelerator", base)
    return carried(_own(document), document, lambda kin: _own(_open(kin, ACCELERATORS, "accelerator", base)))


def _noted(document: reading.Document, texts: dict[str, str]) -> reading.Document:
    """The document, whose text is kept with what else was read."""
    texts[document.file] = document.text
    return document


def _own(document: reading.Document) -> AcceleratorSpec:
    """An accelerator as its file has it."""
    return reading.validate(AcceleratorSpec, document)


def _with(data: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    copy = json.loads(json.dumps(data))
    reading.set_dotted(copy, key, value, where=where)
    return dict(copy)


def _open(name: str, folder: str, what: str, base: Path | None) -> reading.Document:
    return reading.read_shared(reading.find(name, folder, what, base=base))
