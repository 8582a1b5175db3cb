"""What each operator of a graph asks of the machine: its kernel class, its arithmetic, its memory traffic.

To add an operator: a line in ``OPS``, under its ONNX name (with the domain in front where it is not ONNX's own). An
operator without a line is never dropped: its operands are counted as traffic, its arithmetic as none, and it is
reported as unknown.
"""

from __future__ import annotations

from typing import NamedTuple

FREE = ""

#: how arithmetic is counted; a number instead is FLOPs per element of the result
CONV, CONV_TRANSPOSE, MATMUL, GEMM, INNER, ATTENTION, RECURRENT, WINDOW, REDUCE = (
    "conv",
    "conv_transpose",
    "matmul",
    "gemm",
    "inner",
    "attention",
    "recurrent",
    "window",
    "reduce",
)


class Rule(NamedTuple):
    """kernel      class of ``cmsim.compute.KERNELS``; "" for what costs nothing (views, shapes, constants)
    flops       a number per element of the result, or one of the ways above
    joins       a compiler appends it to the kernel that made its first input, so that the tensor between stays on chip
    gathers     reads only as many elements of its first input as it writes
    precision   the format its file dictates, where it does
    """

    kernel: str
    flops: float | str = 0.0
    joins: bool = False
    gathers: bool = False
    precision: str = ""


def _all(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_VIEWS = (
    "Constant ConstantOfShape Identity Reshape Flatten Squeeze Unsqueeze Shape Size Dropout If Loop Scan "
    "SequenceConstruct SequenceAt SplitToSequence ConcatFromSequence SequenceEmpty SequenceInsert SequenceErase "
    "SequenceLength BitCast Optional OptionalGetElement OptionalHasElement EyeLike RandomNormal RandomUniform "
    # of other frameworks: what keeps order or bundles, and computes nothing
    "Load Depend UpdateState MakeTuple TupleGetItem Return StopGradient Partial"
)
_CHEAP = (
    "Add Sub Mul Neg Abs Relu LeakyRelu PRelu ThresholdedRelu Clip Max Min Sum Mean And Or Not Xor Equal Greater Less "
    "GreaterOrEqual LessOrEqual Where Sign Ceil Floor Round IsNaN IsInf BitShift BitwiseAnd BitwiseOr BitwiseXor "
    "BitwiseNot Shrink BiasAdd"
)
_DEAR = (
    "Div Mod Reciprocal Sqrt Exp Log Pow Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Det "
    "com.microsoft.ComplexMul"
)
_ACTIVATIONS = (
    "Sigmoid Tanh SwiGLU Swiglu Gelu Elu Selu Celu Softplus Softsign HardSigmoid HardSwish Swish Mish "
    "com.microsoft.Gelu com.microsoft.FastGelu com.microsoft.BiasGelu com.microsoft.QuickGelu "
    "com.microsoft.BiasSplitGelu"
)
_NORMS = (
    "LayerNormalization RMSNormalization InstanceNormalization GroupNormalization MeanVarianceNormalization "
    "LpNormalization SimplifiedLayerNormalization com.microsoft.LayerNormalization "
    "com.microsoft.SkipLayerNormalization com.microsoft.SimplifiedLayerNormalization "
    "com.microsoft.SkipSimplifiedLayerNormalization com.microsoft.GroupNorm com.microsoft.SkipGroupNorm"
)
_MOVES = (
    "Transpose Concat Split Slice Pad Tile Expand Cast CastLike DepthToSpace SpaceToDepth Compress Resize Upsample "
    "ReverseSequence Trilu OneHot Range NonZero Unique Scatter ScatterElements ScatterND TensorScatter CenterCropPad "
    "GridSample AffineGrid Bernoulli Multinomial RandomNormalLike RandomUniformLike Col2Im MaxUnpool StridedSlice"
)
_REDUCES = (
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare ArgMax ArgMin CumSum CumProd GlobalAveragePool GlobalMaxPool GlobalLpPool TopK "
    "NonMaxSuppression Hardmax"
)

OPS: dict[str, Rule] = {
    **_all(_VIEWS, Rule(FREE)),
    # products
    **_all("Conv DeformConv com.microsoft.FusedConv", Rule("gemm", CONV)),
    **_all("ConvInteger QLinearConv com.microsoft.QLinearConv", Rule("gemm", CONV, precision="int8")),
    "ConvTranspose": Rule("gemm", CONV_TRANSPOSE),
    **_all("MatMul com.microsoft.FusedMatMul com.microsoft.TransposeMatMul", Rule("gemm", MATMUL)),
    **_all("MatMulInteger QLinearMatMul com.microsoft.MatMulIntegerToFloat", Rule("gemm", MATMUL, precision="int8")),
    **_all("Gemm com.microsoft.FusedGemm", Rule("gemm", GEMM)),
    "com.microsoft.QGemm": Rule("gemm", GEMM, precision="int8"),
    **_all("Einsum com.microsoft.MatMulNBits", Rule("gemm", INNER)),
    **_all(
        "Attention com.microsoft.MultiHeadAttention com.microsoft.GroupQueryAttention com.microsoft.Attention",
        Rule("attention_prefill", ATTENTION),
    ),
    **_all("LSTM GRU RNN", Rule("gemm", RECURRENT)),
    # windows, norms, softmax
    **_all("MaxPool AveragePool LpPool MaxRoiPool RoiAlign", Rule("generic", WINDOW)),
    "LRN": Rule("norm", WINDOW),
    "BatchNormalization": Rule("norm", 2.0, joins=True),
    **_all(_NORMS, Rule("norm", 5.0)),
    **_all("Softmax LogSoftmax SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss", Rule("generic", 5.0)),
    "RotaryEmbedding": Rule("rope", 3.0),
    "com.microsoft.RotaryEmbedding": Rule("rope", 3.0),
    # element by element
    **_all(_CHEAP, Rule("generic", 1.0, joins=True)),
    **_all(_DEAR, Rule("generic", 4.0, joins=True)),
    **_all(_ACTIVATIONS, Rule("activation", 5.0, joins=True)),
    **_all(
        "QuantizeLinear DequantizeLinear DynamicQuantizeLinear com.microsoft.QuantizeLinear "
        "com.microsoft.DequantizeLinear",
        Rule("quantise", 3.0, joins=True),
    ),
    **_all("QLinearAdd com.microsoft.QLinearAdd com.microsoft.QLinearMul", Rule("generic", 4.0, joins=True)),
    # tables and moves
    **_all("Gather", Rule("embedding", gathers=True)),
    **_all("GatherElements GatherND", Rule("generic", gathers=True)),
    **_all(_MOVES, Rule("generic")),
    **_all(_REDUCES, Rule("generic", REDUCE)),
    # signals
    **_all("HannWindow HammingWindow BlackmanWindow MelWeightMatrix", Rule("generic", 1.0)),
    **_all("DFT STFT", Rule("generic", 10.0)),
}

#: what stands for an operator that has no line
UNKNOWN = Rule("generic", 0.0)
