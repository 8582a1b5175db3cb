"""Files that stand beside a system file and say what its fabric joins: network files, and tables of links."""

from __future__ import annotations

from pathlib import Path

from cmsim import reading
from cmsim.errors import InputError
from cmsim.hardware.astra_sim import read_network
from cmsim.hardware.link_table import Cable, read_links
from cmsim.hardware.specs import AstraSim, Custom, SystemSpec


def read(
    spec: SystemSpec, document: reading.Document, *, ranks: int, texts: dict[str, str]
) -> tuple[SystemSpec, tuple[Cable, ...]]:
    """The system with what such a file says, and the links of one domain where it is a table.

    document   the system file    ranks   of one domain    texts   takes what was read

    Raises InputError where there is no such file, or it joins another number of accelerators.
    """
    wired = spec.scale_up
    if not isinstance(wired, AstraSim | Custom):
        return spec, ()
    path = Path(document.file).parent / wired.file
    if not reading.exists(path):
        raise InputError(document.problem(("scale_up", "file"), f"no such file: {path}"))
    if isinstance(wired, AstraSim):
        network = reading.read_yaml(path)
        texts[network.file] = network.text
        fabric = read_network(network, wired, accelerators=spec.accelerators)
        return spec.model_copy(update={"scale_up": fabric}), ()
    texts[str(path)] = text = reading.read_text(path)
    return spec, read_links(text, file=str(path), ranks=ranks)
