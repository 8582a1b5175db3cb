"""Clusters as other tools describe them, read as systems; and systems, written so."""

from cmsim.clusters.description import describes
from cmsim.clusters.read import SystemText, read_cluster
from cmsim.clusters.write import write_cluster

__all__ = ["SystemText", "describes", "read_cluster", "write_cluster"]
