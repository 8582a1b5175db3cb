"""What notebooks show holds no markup of a user's."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cmsim
from cmsim import markup

NAME = "<script>alert('x')&"
ESCAPED = "&lt;script&gt;alert(&#39;x&#39;)&amp;"
SCENARIO = {
    "name": NAME,
    "systems": [{"system": "hgx_h100", "name": NAME}],
    "workloads": {NAME: {"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6}},
}


def test_a_workload_and_a_system_named_like_markup():
    scenario = cmsim.load_scenario(SCENARIO)
    results = cmsim.run(scenario)
    system = cmsim.load_system("hgx_h100", label=NAME)
    for one in (scenario, results, results[0], system):
        text = one._repr_html_()
        assert "<script" not in text and ESCAPED in text, type(one)


def test_every_part_of_a_table_is_escaped():
    text = markup.table([(NAME, NAME)], head=(NAME,), title=NAME, about=NAME, notes=(NAME,))
    assert text.count(ESCAPED) == 6 and "<script" not in text


@pytest.mark.parametrize("rows", [[], [("a",)], [("a", "b", "c")]])
def test_tables_of_any_size(rows):
    text = markup.table(rows)
    assert text.startswith("<table>") and text.endswith("</table>")


def test_a_run_does_not_pay_for_the_library_of_templates():
    """It is imported when something is shown."""
    code = "import cmsim, sys; cmsim.run('allreduce'); sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
