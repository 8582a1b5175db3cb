"""Profiles of dispatch and combine kernels as data (``topologies/libraries``): which page, what is sent, constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from cmsim import reading
from cmsim.arrays import Floats
from cmsim.libraries.data import FOLDER
from cmsim.libraries.expert import Exchange, Routing
from cmsim.libraries.expert_bulk import BULK_DEFAULTS, BULK_FAR_DEFAULTS, bulk_kernel_us
from cmsim.libraries.expert_domain import DOMAIN_DEFAULTS, domain_kernel_us
from cmsim.libraries.expert_fused import FUSED_EXCHANGE_DEFAULTS, fused_exchange_us
from cmsim.libraries.expert_latency import LATENCY_DEFAULTS, latency_kernel_us
from cmsim.reading import FitNote, Spec
from cmsim.reading.kept import while_unchanged

Form = Literal["latency", "bulk", "domain", "fused"]
#: constants that a page knows
EXPERT_DEFAULTS: dict[str, Mapping[str, float]] = {
    "latency": LATENCY_DEFAULTS,
    "bulk": {**BULK_DEFAULTS, **BULK_FAR_DEFAULTS},
    "domain": DOMAIN_DEFAULTS,
    "fused": FUSED_EXCHANGE_DEFAULTS,
}


class Payload(Spec):
    """Bytes of one token: elements, scales of blocks, and what every token has."""

    element_B: NonNegativeFloat
    block: PositiveInt = Field(default=1, description="elements that share a scale")
    scale_B: NonNegativeFloat = Field(default=0.0, description="of one block")
    token_B: NonNegativeFloat = Field(default=0.0, description="of one token, beside")


class Operation(Spec):
    """Dispatch, combine, or what stands beside them."""

    payloads: Mapping[str, Payload] = Field(description="by the number format of the table; `any` where it has none")
    common: Mapping[str, float] = Field(description="constants where an accelerator has none of its own")
    classes: Mapping[str, Mapping[str, float]] = Field(default={}, description="constants by class of accelerators")

    def payload(self, form: str) -> Payload | None:
        """What one token is in a number format; None where the operation does not say."""
        return self.payloads.get(form.lower(), self.payloads.get("any"))


class ExpertRows(Spec):
    """A range that measured rows cover; ends belong to it."""

    of: str = Field(description="the accelerator that was measured")
    ranks: tuple[float, float]
    tokens: tuple[float, float] = Field(description="of one rank")


class ExpertProfile(Spec):
    """One family of kernels."""

    form: Form = Field(description="the page: expert_latency, expert_bulk, expert_domain or expert_fused")
    names: tuple[str, ...] = Field(description="how tables call it")
    routing: Routing
    group_limit: PositiveInt | None = Field(default=None, description="domains that routing may choose for one token")
    by_port: bool = Field(default=True, description="false: ranks of one domain reach each other by NIC as well")
    shared_destinations: NonNegativeFloat = Field(default=0.0, description="shared experts reached by the exchange")
    cores: PositiveFloat | None = Field(default=None, description="cores the kernel takes where the table has none")
    rows: tuple[ExpertRows, ...] = Field(description="what the constants were fitted to")
    operations: Mapping[str, Operation]
    between: Mapping[str, Operation] = Field(
        default={}, description="the same where NICs take part, if other kernels do"
    )


class ExpertLibrary(Spec):
    """``topologies/libraries``, kind expert."""

    kind: Literal["expert"]
    name: str
    description: str
    versions: str
    classes: Mapping[str, tuple[str, ...]] = Field(description="accelerators that share constants")
    profiles: Mapping[str, ExpertProfile]
    fits: Mapping[str, FitNote]
    sources: Mapping[str, str]

    def class_of(self, accelerator: str, operation: Operation | None = None) -> str:
        """The class of an accelerator, or "common"; of several, the first that the operation has constants of."""
        found = [name for name, members in self.classes.items() if accelerator in members]
        known = found if operation is None else [name for name in found if name in operation.classes]
        return next(iter(known), "common")

    def profile(self, name: str) -> str | None:
        """The profile that a table calls so, capitals apart."""
        wanted = name.strip().lower()
        return next(
            (key for key, one in self.profiles.items() if wanted in (key, *(also.lower() for also in one.names))), None
        )


@while_unchanged(FOLDER)
def expert_library() -> ExpertLibrary:
    """The profiles: the newest file of the kind."""
    found = [
        document for path in reading.builtin_files(FOLDER).values() if _is_expert(document := reading.read_yaml(path))
    ]
    return reading.validate(ExpertLibrary, found[-1])


def _is_expert(document: reading.Document) -> bool:
    return bool(document.data.get("kind") == "expert")


def exchange_us(profile: ExpertProfile, c: Mapping[str, float], at: Exchange) -> Floats:
    """Time of calls by a profile's page. [us]

    c: constants of the class    at: the calls
    """
    if profile.form == "latency":
        return latency_kernel_us(c, at, by_port=profile.by_port)
    if profile.form == "bulk":
        return bulk_kernel_us(c, at)
    if profile.form == "domain":
        return domain_kernel_us(c, at)
    return fused_exchange_us(c, at)
