"""A graph built layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from cmsim.graphs.graph import PARAMETER, GraphBuilder

Shape = Sequence[int]


class Net:
    """Adds layers one after the other; a tensor is its number."""

    def __init__(self, name: str):
        self.build = GraphBuilder(name, "config")
        self._made = 0

    def given(self, name: str, shape: Shape, *, floating: bool = True) -> int:
        return self.build.tensor(name, shape, width_B=2.0 if floating else 8.0, floating=floating)

    def weight(self, *shape: int, trained: bool = True) -> int:
        self._made += 1
        number = self.build.tensor(f"weight.{self._made}", shape, width_B=2.0, kind=PARAMETER)
        if not trained:
            self.build.freeze(number)
        return number

    def op(self, op: str, name: str, reads: Sequence[int], shape: Shape, **numbers: float) -> int:
        self._made += 1
        made = self.build.tensor(f"{name}.{self._made}", shape, width_B=2.0)
        self.build.node(op, reads, [made], name=name, attributes=numbers)
        return made

    def linear(self, name: str, x: int, rows: int, wide: int, out: int, *, bias: bool = True) -> int:
        reads = [x, self.weight(wide, out), *([self.weight(out)] if bias else [])]
        return self.op("Gemm", name, reads, (1, rows, out))

    def norm(self, name: str, x: int, rows: int, wide: int) -> int:
        return self.op("LayerNormalization", name, [x, self.weight(wide), self.weight(wide)], (1, rows, wide))

    def conv(self, name: str, x: int, channels: int, out: int, kernel: int, size: int) -> int:
        return self.op("Conv", name, [x, self.weight(out, channels, kernel, kernel)], (1, out, size, size))

    def batch_norm(self, name: str, x: int, channels: int, size: int, *, relu: bool = True) -> int:
        own = [self.weight(channels), self.weight(channels)]
        running = [self.weight(channels, trained=False), self.weight(channels, trained=False)]
        y = self.op("BatchNormalization", name, [x, *own, *running], (1, channels, size, size))
        return self.op("Relu", f"{name} relu", [y], (1, channels, size, size)) if relu else y
