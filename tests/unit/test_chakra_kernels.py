"""Kernel classes by name: names as profilers write them."""

from __future__ import annotations

import pytest

from cmsim.compute import KERNELS
from cmsim.traces.kernels import MATRIX, OTHER, kernel_class

MATRIX_NAMES = [
    "ampere_fp16_s16816gemm_fp16_128x128_ldg8_f2f_stages_32x5_nn",
    "maxwell_sgemm_64x64_nt",
    "cudnn_train_maxwell_scudnn_128x128_stridedB_splitK_medium_nn_v0",
    "cudnn_infer_maxwell_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148m_nt_v1",
    "void wgrad_alg0_engine<float, 128, 6, 8, 3, 3, 5, false, 512>(int, int, int, float const*)",
    "void cudnn::detail::dgrad_engine<float, 512, 6, 5, 3, 3, 3, false>(int)",
    "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_64x64_16x6_nn_align4>(Params)",
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc",
    "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT",
    "Cijk_Ailk_Bljk_HHS_BH_MT128x128x32_MI32x32x8x1",
    "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, 4>>",
    "fmha_cutlassB_bf16_aligned_64x64_k64_sm80",
    "aclnnMatmul_MatMulCommon_MatMulV2",
    "Conv2DBackpropFilter",
    "FlashAttentionScore",
    "GroupedMatmul",
    "COMP_NODE_conv1_FWD",
]
OTHER_NAMES = [
    "",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>",
    "void cudnn::bn_bw_1C11_kernel_new<float, float, float2, 128, true, 1>(float)",
    "cask_cudnn_train::computeWgradSplitKOffsetsKernel(cask_cudnn_train::ComputeSplitKOffsetsParams)",
    "void cudnn::winograd_nonfused::winogradForwardData4x4<float, float>",
    "void cudnn::winograd::generateWinogradTilesKernel<0, float, float>",
    "void splitKreduce_kernel<32, 16, int, float, float, float, float, true, true, false>",
    "void convertTensor_kernel<float, half>",
    "Memcpy DtoD (Device -> Device)",
    "aclnnMatmul_TransData_TransData",
    "void (anonymous namespace)::softmax_warp_forward<float, float, float, 10, true, false>",
    "ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*)",
    "multi_tensor_apply_kernel",
]


@pytest.mark.parametrize("name", MATRIX_NAMES)
def test_matrix_work(name: str) -> None:
    assert kernel_class(name) == MATRIX


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_work(name: str) -> None:
    assert kernel_class(name) == OTHER


def test_classes_exist() -> None:
    assert KERNELS[MATRIX].matrix
    assert not KERNELS[OTHER].matrix
