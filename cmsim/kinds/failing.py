"""What fails under a service, and how what is lost comes back: keys of a scenario."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cmsim.kinds.parts import ASKED
from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, GBps, SecondsAtLeast

Seconds = Annotated[float, NUMBER, Field(ge=0, le=1e6)]


class WeightsSpec(Spec):
    """How weights come to a replica that has none."""

    weights_from: Annotated[Literal["storage", "host", "pool"], ASKED] = Field(
        default="storage",
        description="where weights come from. storage: that of the site, at storage_GBps, which all that load at "
        "once share; host: memory of its own hosts; pool: memory of all hosts, over the fabric",
    )
    storage_GBps: GBps | None = Field(default=None, description="what the storage of the site gives")
    start_s: SecondsAtLeast | None = Field(default=None, description="of the engine, beside its weights; default: none")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.weights_from == "storage") != (self.storage_GBps is not None):
            raise ValueError("storage_GBps: goes with `weights_from: storage`, which needs it")
        return self


class ServiceFailureSpec(Spec):
    """One failure: what it takes, from when on, and how long until it is repaired."""

    at_s: Seconds = Field(description="when it comes")
    takes: Annotated[Literal["rank", "replica", "rack"], ASKED] | None = Field(
        default=None,
        description="rank: one of a replica, which stops, for its ranks meet in every step; what was cached is lost, "
        "and after the repair the weights of one package come anew; replica: all of it; rack: every replica that has "
        "packages in it",
    )
    fault: str | None = Field(
        default=None,
        description="a part of the fabric that is down meanwhile, as in `faults`, numbers counted within a replica: "
        "all steps are as much longer as one is that is simulated with it",
    )
    pool: Annotated[Literal["prefill", "decode"], ASKED] = Field(
        default="decode", description="of a rank or replica, where there are two pools"
    )
    number: Annotated[int, Field(ge=0, le=10**6)] = Field(
        default=0, description="which replica of the pool, or rack of the machine"
    )
    repair_s: Seconds = Field(description="until it is repaired; a replica loads its weights then")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.takes is None) == (self.fault is None):
            raise ValueError("takes, fault: one of the two")
        return self


class ServiceFailuresSpec(WeightsSpec):
    """Failures of a service under load."""

    events: tuple[ServiceFailureSpec, ...] = Field(min_length=1, description="one by one")
    lost: Annotated[Literal["retry", "drop"], ASKED] = Field(
        default="retry",
        description="requests whose cache was lost. retry: computed anew elsewhere, with what was answered; drop: they "
        "end. Those that had not begun wait elsewhere in any case",
    )


__all__ = ["ServiceFailureSpec", "ServiceFailuresSpec", "WeightsSpec"]
