#include "launch.h"

#include "../trilinear.cu"

namespace
{

constexpr int64_t kBLOCK = 128;
constexpr int64_t kCHANNELS_PER_THREAD = 8;

void const* kernelFor(jotr::Element element) noexcept
{
    switch (element)
    {
    case jotr::Element::kFloat: return reinterpret_cast<void const*>(&trilinear_sample_3d_f32);
    case jotr::Element::kHalf: return reinterpret_cast<void const*>(&trilinear_sample_3d_f16);
    case jotr::Element::kBfloat16: return reinterpret_cast<void const*>(&trilinear_sample_3d_bf16);
    }
    return nullptr;
}

} // namespace

char const* jotr::launch(Element element, void const* features, void const* points, Sizes const& sizes, void* samples,
    cudaStream_t stream) noexcept
{
    int64_t const groups = (sizes.C + kCHANNELS_PER_THREAD - 1) / kCHANNELS_PER_THREAD;
    int64_t const rows = int64_t{sizes.B} * sizes.P;
    if (rows == 0 || groups == 0)
    {
        return nullptr;
    }
    if (rows > INT32_MAX / groups)
    {
        return "more than 2^31 groups of channels to sample";
    }
    auto const blocks = static_cast<unsigned>((rows * groups + kBLOCK - 1) / kBLOCK);

    int B = sizes.B, D = sizes.D, H = sizes.H, W = sizes.W, C = sizes.C, P = sizes.P;
    void* arguments[] = {&features, &points, &B, &D, &H, &W, &C, &P, &samples};
    cudaError_t const status
        = cudaLaunchKernel(kernelFor(element), dim3(blocks), dim3(kBLOCK), arguments, 0, stream);
    return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
