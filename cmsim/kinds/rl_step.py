"""One step of reinforcement learning: answers are made, scored, trained on, and new weights go to who makes answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cmsim.kinds import common
from cmsim.kinds.asking import Many
from cmsim.kinds.decode import Speculative
from cmsim.kinds.kind import PER, Facts, Frame, Itself, Kind, Metric
from cmsim.kinds.parts import ASKED, Balance, InferenceParallelSpec, InferencePrecisionSpec, WorkloadSpec
from cmsim.kinds.serving import BatchingSpec, MicroBatches
from cmsim.kinds.training import Moved, TrainingSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Coefficient, Places, Seconds, Tokens


class AnswersSpec(Spec):
    """How many tokens answers have: log-normal, cut off."""

    mean: Tokens = Field(description="of what is drawn, before it is cut off")
    cv: Coefficient = Field(default=1.0, description="standard deviation over mean; 0: all are alike")
    most: Tokens = Field(description="at which an answer is cut off")

    @model_validator(mode="after")
    def _in_order(self) -> AnswersSpec:
        if self.mean > self.most:
            raise ValueError(f"mean: got {self.mean}. Allowed: up to `most` ({self.most}).")
        return self


class RolloutSpec(Spec):
    """Copies of the model that make answers, as a service does."""

    accelerators: Places = Field(description="packages of one copy")
    replicas: Places | None = Field(
        default=None, description="copies; default: as many as the machine has room for, pools apart half of it"
    )
    parallel: InferenceParallelSpec = Field(
        default=InferenceParallelSpec(), description="how one copy's work is split over its ranks"
    )
    precision: InferencePrecisionSpec = Field(
        default=InferencePrecisionSpec(), description="number formats; weights come in its own"
    )
    microbatches: MicroBatches = Field(default=1, description="2: one computes while one communicates")
    speculative: Speculative | None = Field(default=None, description="draft tokens verified beside the last one")
    batching: BatchingSpec = Field(
        default=BatchingSpec(),
        description="how steps are made of answers; with `prefix_share` a prompt is computed once for its answers",
    )


class ForwardSpec(Spec):
    """A pass over all prompts and answers that trains nothing: of a reference, of the old policy, of a reward model."""

    model: str | None = Field(default=None, description="as of workloads; default: the model that is trained")
    sequences: Tokens = Field(default=1, description="of `training.sequence_length` tokens, that a tensor group passes")
    parallel: InferenceParallelSpec = Field(
        default=InferenceParallelSpec(), description="how its work is split over the trainers' ranks"
    )
    precision: InferencePrecisionSpec = Field(default=InferencePrecisionSpec(), description="number formats")


class StatesSpec(Spec):
    """What trainers move to the host's memory while answers are made: shares, or true for all and false for nothing."""

    weights: Moved = Field(default=1.0, description="of the trainers' weights: leave when they are handed over")
    optimizer: Moved = Field(default=1.0, description="of the optimizer's states: leave after the last update")


class RlStepSpec(WorkloadSpec):
    """One step of reinforcement learning on prompts."""

    kind: Literal["rl_step"]
    model: str = Field(description="name of a file in workloads/models, or a path to a Hugging Face config.json")
    prompts: Many = Field(description="of a step")
    samples: Many = Field(default=1, description="answers to each prompt")
    prompt_tokens: Tokens = Field(description="of each prompt")
    answers: AnswersSpec = Field(description="how many tokens answers have")
    pools: Annotated[Literal["colocated", "separate", "one_step_off"], ASKED] = Field(
        default="colocated",
        description="colocated: the same accelerators make answers and train, by turns; separate: trainers are the "
        "first accelerators of the machine, those behind them make answers; one_step_off: apart too, and answers of "
        "the next step are made, with weights that are a step old, while this one is trained on",
    )
    rollout: RolloutSpec = Field(description="who makes answers")
    forwards: list[ForwardSpec] = Field(
        default=[], max_length=8, description="passes before training, by the trainers, one after the other"
    )
    reward_s: Seconds = Field(
        default=0.0, description="what rewards take beside accelerators when all answers are there (tests, judges)"
    )
    training: TrainingSpec = Field(
        description="updates, as workloads of kind training have it, without `kind`; `model` and `balance` are those "
        "above where not given. Prompts and answers are packed in sequences of `sequence_length`, `global_batch` of "
        "them in an update"
    )
    offload: StatesSpec = Field(
        default=StatesSpec(), description="colocated: what makes room for the cache while answers are made"
    )
    balance: Balance = Field(default=Balance(), description="expert load")

    @model_validator(mode="before")
    @classmethod
    def _trains_it(cls, data: Any) -> Any:
        """What is trained is the model that answers."""
        if not isinstance(data, dict) or not isinstance(data.get("training"), Mapping):
            return data
        above = {key: data[key] for key in ("model", "balance") if key in data}
        return {**data, "training": {"kind": "training", **above, **data["training"]}}

    @model_validator(mode="after")
    def _go_together(self) -> RlStepSpec:
        if self.pools != "colocated" and "offload" in self.model_fields_set:
            raise ValueError("offload: goes with `pools: colocated` alone")
        longest, room = self.prompt_tokens + self.answers.most, self.training.sequence_length
        if longest > room:
            raise ValueError(
                f"training.sequence_length: got {room}. Allowed: from {longest}, the longest prompt with its answer."
            )
        if self.ranks is not None or self.training.ranks is not None:
            raise ValueError("ranks: a step counts `accelerators` of the system and of a copy")
        return self


@dataclass(frozen=True)
class RlStepFacts(Facts):
    """answers: of a step    prompt_tokens, answer_tokens: of all of them    replicas: copies that make answers
    trainers: accelerators that train    updates: of the optimizer    sequences: packed
    weights_B: that each rank which makes answers is sent [B]    moved_B: between a rank and its host [B]"""

    answers: float
    prompt_tokens: float
    answer_tokens: float
    replicas: float
    trainers: float
    updates: float
    sequences: float
    weights_B: float
    moved_B: float


_METRICS = (
    Metric("step_time_s", "s", "less", "from one step to the next"),
    Metric("rollout_s", "s", "less", "until the last answer is there"),
    Metric("rollout_tail_s", "s", "less", "of it, after nine of ten answers are there"),
    Metric("reward_s", "s", "less", "of rewards beside accelerators"),
    Metric("forward_s", "s", "less", "of passes that train nothing"),
    Metric("training_s", "s", "less", "of all updates"),
    Metric("weights_s", "s", "less", "of new weights on their way to who makes answers"),
    Metric("offload_s", "s", "less", "of what leaves to hosts and comes back"),
    Metric("tokens_per_s", "tokens/s", "more", "tokens of prompts and answers over the step"),
    Metric("tokens_per_s_per_accelerator", "tokens/s", "more", "the same, over accelerators (packages) in use"),
    Metric("answer_tokens_per_s", "tokens/s", "more", "tokens of answers over the step"),
    Metric("rollout_tokens_per_s", "tokens/s", "more", "tokens of answers over the time in which they are made"),
    Metric("rollout_idle_fraction", "1", "less", "of accelerators that make answers, until the last one is there"),
    Metric("idle_fraction", "1", "less", "of all accelerators over the step: for the last answers, or the other pool"),
    Metric("training_mfu", "1", "more", "of updates alone, as of a training step"),
    common.MAKESPAN,
    common.MEMORY,
    *(one for one in common.power_of("token") if one.name in common.OF_WHOLE),
)

KIND = Kind(
    name="rl_step",
    spec=RlStepSpec,
    execution=Itself("cmsim.reinforcement.execute:execute"),
    facts=RlStepFacts,
    metrics=_METRICS,
    frames=(
        Frame(
            "parts",
            {
                "part": "rollout, reward, forward, training, weights, offload, or wait",
                "pool": "who is at work: all, trainers or rollout",
                "accelerators": "of the pool",
                "start_s": "when it begins [s]",
                "end_s": "when it ends [s]",
                "energy_J": "of the facility, for these accelerators in this time [J]",
            },
            "one row per part of a step and pool",
        ),
        Frame(
            "answers",
            {
                "prompt": "number of the prompt",
                "holder": "who made it, counted over all copies",
                "prompt_tokens": "of the prompt",
                "answer_tokens": "of the answer",
                "cached_tokens": "of the prompt that were in the cache",
                "started_s": "when its prompt was begun [s]",
                "end_s": "when its last token was there [s]",
            },
            "one row per answer",
        ),
    ),
    decisive=("tokens_per_s",),
    table=(
        *("step_time_s", "rollout_s", "forward_s", "training_s", "weights_s", "offload_s", "tokens_per_s", PER),
        *("idle_fraction", "energy_per_token_J"),
    ),
    headline=("step_time_s", "tokens_per_s", "tokens_per_s_per_accelerator", "energy_per_token_J", "makespan_s"),
    rates=("tokens_per_s",),
    figure=("step_time_s", "tokens_per_s_per_accelerator"),
    mark="rollout_tail_s",
)
