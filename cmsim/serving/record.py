"""What a replica did, as columns, for who measures it afterwards."""

from __future__ import annotations

from array import array

from cmsim.serving.costs import Joules


class StepLog:
    """One per replica.

    jumps   steps that only decode, six numbers each: sequences that set the pace, their cached tokens, how many steps,
            sequences that got a token in each, when they begin [ps], sequences of a holder in the mean
    mixed   steps with prompts, three numbers each: time [ps], sequences that got a token beside, when it begins [ps]
    gaps    between two tokens of those that were preempted between them [ps]
    joins   from the last token to the step that makes the next, of whose cache came from elsewhere [ps]
    joules  of each step with prompts, both ends of the band and the middle    preemptions  how many
    """

    def __init__(self) -> None:
        self.jumps, self.mixed, self.gaps, self.joins = array("q"), array("q"), array("q"), array("q")
        self.joules = array("d")
        self.preemptions = 0
        self._gone: dict[int, int] = {}

    def jump(self, pace: int, mean: int, context: int, steps: int, tokens: int, began: int) -> None:
        """Adds a jump, or goes on with the last one."""
        jumps = self.jumps
        same = jumps and jumps[-5] + jumps[-4] == context and (jumps[-6], jumps[-3], jumps[-1]) == (pace, tokens, mean)
        if same:
            jumps[-4] += steps
        else:
            jumps.extend((pace, context, steps, tokens, began, mean))

    def mix(self, time_ps: int, tokens: int, joules: Joules, began: int) -> None:
        """Adds a step with prompts."""
        self.mixed.extend((time_ps, tokens, began))
        self.joules.extend(joules)

    def took(self, time_ps: int) -> None:
        """The last step with prompts is over: it may have waited for a cache."""
        self.mixed[-3] = time_ps

    def stopped(self, rows: int, began: int, took_ps: int) -> None:
        """The step that runs is over before its end, and nobody has a token of it; before it there were ``rows``."""
        width = 3
        spent = [sum(self.joules[width * rows + at :: width]) for at in range(width)]
        full_ps = self.mixed[-3]
        del self.mixed[width * rows :], self.joules[width * rows :]
        low, middle, high = (one * min(took_ps / max(full_ps, 1), 1.0) for one in spent)
        self.mix(took_ps, 0, (low, middle, high), began)

    def preempted(self, one: int, now: int) -> None:
        """Somebody lost its blocks."""
        self.preemptions += 1
        self._gone[one] = now

    def resumed(self, one: int, now: int, since: int) -> None:
        """Somebody has its next token; ``since``: where it did not lose its place here, when it had its last one."""
        self.gaps.append(now - max(self._gone.pop(one, since), since))

    def forget(self, one: int, since: int) -> int:
        """When somebody who is lost had its last token: as it lost its place, or at a time."""
        return self._gone.pop(one, since)

    def joined(self, one: int, now: int, since: int) -> None:
        """Somebody decodes whose cache came from elsewhere: of another pool since its first token, or of the host."""
        self.joins.append(now - self._gone.pop(one, since))
