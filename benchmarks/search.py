"""How fast plans are priced: GPT-3 175B on 512 accelerators, batch 512, with more axes than a search has by itself.

    python benchmarks/search.py        prints plans, seconds of pricing, and seconds of 300,000 plans at that rate

Only the closed form is timed: reasons and memory are in the space, passes are measured before. A plan counts as priced
when it goes: it has a time and a bound.
"""

from __future__ import annotations

import time

from cmsim import api
from cmsim.scenario import load_scenario
from cmsim.search import axes, price, probes
from cmsim.search.axes import Question
from cmsim.search.space import space
from cmsim.workload.model import load_model

OVER = {"overlap_data_parallel": [True, False]}
_TARGET = 300_000


def main() -> None:
    one = load_scenario("benchmarks/scenarios/gpt3_search.yaml").runs[0]
    system = api.Machines()(one)
    asked = Question(one.spec, system, load_model(one.spec.model))
    begin = time.perf_counter()
    made = space(asked, axes.values_of(asked, OVER), None)
    settled = time.perf_counter()
    answers = probes.measure(one, asked, price.wanted(made), jobs=None, progress=None)
    measured = time.perf_counter()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        price.price(made, answers)
        seconds.append(time.perf_counter() - start)
    priced = sum(int(block.goes.sum()) for block in made.blocks)
    took = min(seconds)
    print(f"{made.plans:,} plans settled and weighed: {settled - begin:.2f} s")
    print(f"passes and steps measured: {measured - settled:.2f} s")
    print(f"{priced:,} plans priced in {took:.3f} s, {priced / took:,.0f} a second")
    print(f"{_TARGET:,} plans: {_TARGET * took / priced:.2f} s")


if __name__ == "__main__":
    main()
