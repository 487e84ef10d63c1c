// The seam between the plugin (host only, TensorRT's headers) and the kernel (CUDA, no TensorRT).
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace jotr
{

/// Type of features and samples; points are always float32.
enum class Element
{
    kFloat,
    kHalf,
    kBfloat16
};

/// features [B,D,H,W,C], points [B,P,3], samples [B,P,C].
struct Sizes
{
    int32_t B, D, H, W, C, P;
};

/// Queues one kernel on the stream: no allocation, no synchronisation. Nothing is queued where there is no sample.
/// Returns nullptr, or why the kernel could not be queued (static text).
char const* launch(Element element, void const* features, void const* points, Sizes const& sizes, void* samples,
    cudaStream_t stream) noexcept;

} // namespace jotr
