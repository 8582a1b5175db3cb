"""Classes of equal resources: ports and NICs of rank classes, uplinks of node classes and of leaf classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cmsim.arrays import Floats, Ints, Numbers
from cmsim.engine.fold import Folding
from cmsim.reading.kept import while_equal
from cmsim.topology import Fabric

#: kinds of resources: of a rank, of a rank, of a node, of a leaf switch
PORT, NIC, UPLINK, LEAF = "port", "nic", "uplink", "leaf"
#: both directions of every one are apart
DIRECTIONS = ("out", "in")


@dataclass(frozen=True)
class Resources:
    """Classes of equal resources. Lists run over classes.

    name          "port.out[3]": kind, direction, number of its rank, node or leaf class
    instances     how many equal ones there are
    capacity_Bps  of one instance
    rank_class    the class it belongs to; of a node or leaf, the first one there
    port_share    use of one rank's port, mean of both directions, when it is fully used; 0 if it is no port [1]
    label         one of them in words; empty where ``name`` says it all
    changes_ps    when the network changes; demands say what becomes of them [ps]
    located       makes, by kind, the class of every single resource of the system that a class stands for (of ranks,
                  nodes, leaves, links, by their numbers there), -1 for none
    """

    name: list[str]
    instances: list[int]
    capacity_Bps: list[float]
    rank_class: list[int]
    port_share: list[float]
    label: list[str] = field(default_factory=list)
    changes_ps: tuple[int, ...] = ()
    located: Callable[[], dict[str, Ints]] = dict


@dataclass(frozen=True)
class Incidence:
    """Numbers of resource classes, by (kind, direction) -> array over rank, node or leaf classes; and, for each
    rank class, how many ranks of it one instance of its node and leaf class holds."""

    number: dict[tuple[str, str], Ints]
    in_node: Ints
    in_leaf: Ints


@while_equal()
def resources(
    folding: Folding, levels: Fabric, factors: Floats, node: Numbers, leaf: Numbers, ranks: int
) -> tuple[Resources, Incidence]:
    """The resource classes of a folding.

    levels  capacities of the fabric    factors  per rank: of compute time, port and NIC capacity, shape (ranks, 3)
    node, leaf  of each rank
    """
    classes = len(folding.first)
    rank_node_class = folding.node_class[folding.rank_class]
    rank_leaf_class = folding.leaf_class[folding.rank_class]
    # instances of node and leaf classes in use, and ranks of a class in one of them
    node_count = _distinct_per(rank_node_class, node)
    leaf_count = _distinct_per(rank_leaf_class, leaf)
    in_node = folding.count // node_count[folding.node_class]
    in_leaf = folding.count // leaf_count[folding.leaf_class]
    names: list[str] = []
    instances: list[int] = []
    capacity: list[float] = []
    owner: list[int] = []
    port_share: list[float] = []
    number: dict[tuple[str, str], Ints] = {}

    def add(kind: str, counts: Sequence[int], capacities: Sequence[float], home: Ints) -> None:
        for direction in DIRECTIONS:
            here = np.full(len(counts), -1, np.int64)
            for i, (count, rate) in enumerate(zip(counts, capacities, strict=True)):
                if np.isfinite(rate) and count:
                    here[i] = len(names)
                    names.append(f"{kind}.{direction}[{i}]")
                    instances.append(int(count))
                    capacity.append(float(rate))
                    owner.append(int(np.argmax(home == i)))
                    port_share.append(0.5 if kind == PORT else 0.0)
            number[kind, direction] = here

    own = np.arange(classes)
    add(PORT, list(folding.count), list(levels.port_Bps * factors[folding.first, 1]), own)
    add(NIC, list(folding.count), list(levels.nic_Bps * factors[folding.first, 2]), own)
    add(UPLINK, list(node_count), [levels.uplink_Bps] * len(node_count), folding.node_class)
    add(LEAF, list(leaf_count), [levels.leaf_Bps] * len(leaf_count), folding.leaf_class)
    assert int(folding.count.sum()) == ranks and classes == len(in_node)
    located = partial(_located, number, folding, node, leaf)
    return (
        Resources(names, instances, capacity, owner, port_share, located=located),
        Incidence(number, in_node, in_leaf),
    )


def _located(number: dict[tuple[str, str], Ints], folding: Folding, node: Numbers, leaf: Numbers) -> dict[str, Ints]:
    """The class of every rank's port and NIC, of every node's uplink and of every leaf's, one direction each."""
    out: dict[str, Ints] = {}
    for (kind, direction), classes in number.items():
        if kind in (PORT, NIC):
            where: Numbers = np.arange(len(node))
            of_rank = classes[folding.rank_class]
        elif kind == UPLINK:
            where, of_rank = node, classes[folding.node_class[folding.rank_class]]
        else:
            where, of_rank = leaf, classes[folding.leaf_class[folding.rank_class]]
        out[f"{kind}.{direction}"] = here = np.full(int(where.max(initial=-1)) + 1, -1, np.int64)
        here[where] = of_rank
    return out


def _distinct_per(colour: Ints, instance: Numbers) -> Ints:
    """Instances of each colour, shape (max colour + 1,); an instance has one colour, whoever is there."""
    of_instance = np.full(int(instance.max()) + 1, -1, np.int64)
    of_instance[instance] = colour
    return np.bincount(of_instance[of_instance >= 0], minlength=int(colour.max()) + 1)
