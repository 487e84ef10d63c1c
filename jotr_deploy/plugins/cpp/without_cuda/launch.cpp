// The launcher and the kernel, compiled for the CPU: what the CUDA compiler brings of itself, then the two files.
#include <algorithm>
#include <cmath>

#include "../launch.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

static thread_local dim3 blockIdx, blockDim, threadIdx;

static float __uint_as_float(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

static unsigned __float_as_uint(float value)
{
    unsigned bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float __fmul_rn(float a, float b)
{
    return a * b;
}

using std::min;

struct Half;
static float to_float(Half value);
static void from_float(float value, Half& result);

/// Every kernel here takes two inputs, six sizes and an output.
static cudaError_t cudaLaunchKernel(
    void const* kernel, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t stream)
{
    using Kernel = void (*)(void const*, void const*, int, int, int, int, int, int, void*);
    auto const run = reinterpret_cast<Kernel>(const_cast<void*>(kernel));
    auto const pointer = [&](int i) { return *static_cast<void**>(arguments[i]); };
    auto const size = [&](int i) { return *static_cast<int*>(arguments[i]); };
    void* const features = pointer(0);
    void* const points = pointer(1);
    void* const samples = pointer(8);
    int const B = size(2), D = size(3), H = size(4), W = size(5), C = size(6), P = size(7);
    if (shared != 0 || grid.x == 0 || features == nullptr || points == nullptr || samples == nullptr)
    {
        return cudaErrorInvalidValue;
    }
    return queueWork(stream, [=] {
        blockDim = block;
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
        {
            for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x)
            {
                run(features, points, B, D, H, W, C, P, samples);
            }
        }
    });
}

#include "../launch.cu"

static float to_float(Half value)
{
    int const exponent = value.bits >> 10 & 0x1f;
    int const fraction = value.bits & 0x3ff;
    float const magnitude = exponent == 0x1f ? (fraction != 0 ? NAN : INFINITY)
        : exponent == 0                      ? std::ldexp(static_cast<float>(fraction), -24)
                                             : std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
    return value.bits & 0x8000 ? -magnitude : magnitude;
}

/// Numbers up to 65504, to nearest, ties to even.
static void from_float(float value, Half& result)
{
    int const exponent = std::max(std::ilogb(value != 0 ? value : 1.F), -14);
    auto const fraction = static_cast<int>(std::nearbyint(std::ldexp(std::fabs(value), 10 - exponent)));
    int const magnitude = fraction < 0x400 ? fraction : fraction + ((exponent + 14) << 10);
    result.bits = static_cast<unsigned short>(magnitude | (std::signbit(value) ? 0x8000 : 0));
}
