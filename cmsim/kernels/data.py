"""Constants of kernels as data: ``topologies/kernels/<accelerator>_<kind>.yaml``, and who inherits whose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import Field

from cmsim import reading
from cmsim.errors import InputError, Problem
from cmsim.hardware import ACCELERATORS, AcceleratorSpec
from cmsim.kernels.machine import Machine
from cmsim.kernels.residual import Residual, read_residuals
from cmsim.reading import FitNote, Spec
from cmsim.reading.kept import while_unchanged
from cmsim.units import GB

FOLDER = "topologies/kernels"


class Variant(Spec):
    """Constants of one number format and kernel family, and the columns that were seen."""

    constants: Mapping[str, float] = Field(description="of the device: they go with the accelerator")
    host: Mapping[str, float] = Field(
        default={}, description="of what the host does around the kernel inside the timed call: they go with the host"
    )
    seen: Mapping[str, tuple[float, float]] = Field(default={}, description="least and largest value of a column")

    @property
    def whole(self) -> dict[str, float]:
        """Constants of device and host together."""
        return {**self.constants, **self.host}


class KernelFile(Spec):
    """One kind of kernel on one accelerator. Residuals stand in a CSV of the same name, where there are any."""

    accelerator: str
    kind: str
    host_kind: str | None = Field(
        default=None, description="kind of host beside the device when its rows were measured"
    )
    description: str
    variants: Mapping[str, Variant] = Field(
        description="by number format, then kernel: `fp8/cutlass`; best known first"
    )
    fits: Mapping[str, FitNote]
    sources: Mapping[str, str]


class Relative(Spec):
    """Whose constants an accelerator takes that has no rows."""

    accelerator: str
    same_cores: bool = Field(default=False, description="whether rates of one core carry over as they are")
    why: str


class RelativesFile(Spec):
    """Whose constants are inherited where the accelerator's own file names nobody."""

    relatives: Mapping[str, Relative]


@dataclass(frozen=True)
class Found:
    """Constants of a kind for an accelerator.

    accelerator: asked for    of: whose constants these are    residuals: by variant
    same_cores: whether rates of one core are the accelerator's own too
    host: kind of host whose part the variants have    host_of: whose rows that part is from, where they have one
    """

    accelerator: str
    of: str
    variants: Mapping[str, Variant]
    residuals: Mapping[str, Residual] = field(default_factory=dict)
    same_cores: bool = True
    host: str | None = None
    host_of: str | None = None

    @property
    def inherited(self) -> bool:
        return self.of != self.accelerator


def kernel_machine(spec: AcceleratorSpec) -> Machine:
    """The device that runs one kernel: a die where the accelerator's dies are devices."""
    return Machine(
        name=spec.name,
        cores=spec.cores / spec.dies,
        peak_FLOPps={name: value * 1e12 / spec.dies for name, value in spec.peak_TFLOPps.items()},
        vector_FLOPps=spec.vector_TFLOPps * 1e12 / spec.dies,
        memory_Bps=spec.memory_GBps * GB / spec.dies,
    )


def kernel_data(spec: AcceleratorSpec, kind: str) -> Found:
    """Constants of an accelerator, or of the nearest relative that has a file of this kind.

    A relative beside another kind of host lends the device's part alone; the host's is that of rows measured beside the
    accelerator's own kind of host, of the same format and kernel where there are any. Where there are none it stays.

    InputError: neither it nor a relative has one.
    """
    seen = [spec.name]
    same = True
    while True:
        path = reading.builtin_files(FOLDER).get(f"{seen[-1]}_{kind}")
        if path is not None:
            data, residuals = _read(f"{seen[-1]}_{kind}")
            variants, host, host_of = _beside_host(data, spec.host_kind)
            return Found(spec.name, seen[-1], variants, residuals, same, host, host_of)
        following, like = _relative(seen[-1])
        same = same and like
        if following is None or following in seen:
            known = sorted(
                name.removesuffix(f"_{kind}") for name in reading.builtin_files(FOLDER) if name.endswith(kind)
            )
            raise InputError(
                Problem(
                    f"no constants of '{kind}' for {' or its relative '.join(seen)}. "
                    f"There are some for: {', '.join(known) or 'none'}",
                    FOLDER,
                )
            )
        seen.append(following)


def _beside_host(data: KernelFile, host: str | None) -> tuple[Mapping[str, Variant], str | None, str | None]:
    """Variants with the part of that kind of host where it was measured; the kind they have; whose rows it is from."""
    hosted = [name for name, one in data.variants.items() if one.host]
    if not hosted:
        return data.variants, None, None
    parts = _host_parts(data.kind, host) if host not in (None, data.host_kind) else {}
    variants, host_of = dict(data.variants), set()
    for name in hosted:
        if alike := [other for other in parts if other.partition("/")[0] == name.partition("/")[0]]:
            whose, part = parts[choose_variant(name, alike)]
            variants[name] = data.variants[name].model_copy(update={"host": part})
            host_of.add(whose)
    if not host_of:
        return data.variants, data.host_kind, data.accelerator
    return variants, host, ", ".join(sorted(host_of))


@while_unchanged(FOLDER, most=256)
def _host_parts(kind: str, host: str | None) -> Mapping[str, tuple[str, Mapping[str, float]]]:
    """By variant: whose rows were measured beside that kind of host, and the host's part of their constants."""
    read = [_read(name)[0] for name in sorted(reading.builtin_files(FOLDER)) if name.endswith(f"_{kind}")]
    return {
        name: (data.accelerator, one.host)
        for data in read
        if data.host_kind == host
        for name, one in data.variants.items()
        if one.host
    }


@while_unchanged(FOLDER, most=256)
def _read(name: str) -> tuple[KernelFile, Mapping[str, Residual]]:
    path = reading.builtin_files(FOLDER)[name]
    data = reading.validate(KernelFile, reading.read_yaml(path))
    beside = path.with_suffix(".csv")
    return data, read_residuals(reading.read_text(beside), file=str(beside)) if beside.is_file() else {}


@while_unchanged(FOLDER, ACCELERATORS, most=256)
def _relative(accelerator: str) -> tuple[str | None, bool]:
    """The relative that the accelerator's file names, or the folder's list; and whether their cores are alike."""
    path = reading.builtin_files(ACCELERATORS).get(accelerator)
    own = reading.read_yaml(path).data.get("relative") if path is not None else None
    if own is not None:
        return own, True
    listed = _listed().get(accelerator)
    return (listed.accelerator, listed.same_cores) if listed is not None else (None, False)


@while_unchanged(FOLDER)
def _listed() -> Mapping[str, Relative]:
    """The one file of the folder that is a list of kinship."""
    for path in reading.builtin_files(FOLDER).values():
        if "\nrelatives:" in reading.read_text(path):
            return reading.validate(RelativesFile, reading.read_yaml(path)).relatives
    return {}


def choose_variant(wanted: str, known: Iterable[str]) -> str:
    """The variant that shares most leading parts with the one wanted; of equals, the first of the file.

    >>> choose_variant("fp8/other", ["bfloat16/a", "fp8/b", "fp8/c"])
    'fp8/b'
    """

    def shared(name: str) -> int:
        same = [a == b for a, b in zip(wanted.split("/"), name.split("/"), strict=False)]
        return ([*same, False]).index(False)

    return max(known, key=shared)
