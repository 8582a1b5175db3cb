"""Systems as they are used."""

from __future__ import annotations

import pytest

from cmsim.errors import InputError
from cmsim.hardware import load_system


def test_jobs_over_several_racks_take_as_many_of_each_as_operators_do() -> None:
    several = load_system("gb200_nvl72", domains=4)
    assert (several.spec.accelerators, several.packages, several.domains) == (64, 256, 4)
    assert "64 of the 72" in several.notes[0]
    assert load_system("gb200_nvl72").packages == 72
    # all of them where that is said, or where more are asked for
    assert load_system("gb200_nvl72", domains=4, set={"accelerators": 72}).packages == 288
    filled = load_system("gb200_nvl72", domains=4, accelerators=272)
    assert (filled.spec.accelerators, filled.packages, filled.notes) == (72, 272, ())
    assert load_system("gb200_nvl72", domains=4, accelerators=128).spec.accelerators == 64


def test_a_share_of_a_domain_fills_nodes() -> None:
    with pytest.raises(InputError, match="job_accelerators: 30 does not fill nodes of 4"):
        load_system("gb200_nvl72", set={"job_accelerators": 30})
