// Runs trilinear.cu on the CPU, thread after thread: CUDA's built-ins, the two conversions that are instructions of a
// GPU, and a launcher for each entry point. Compile with -DSOURCE='"path of trilinear.cu"' -ffp-contract=off.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

using std::min;

struct Dimension {
    unsigned x;
};

static Dimension blockIdx, blockDim, threadIdx;

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

static float __fmul_rn(float a, float b) { return a * b; }

static float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

#include SOURCE

static float to_float(Half value) {
    const int exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                                      : std::ldexp(float(exponent ? 1024 + mantissa : mantissa), std::max(exponent, 1) - 25);
    return value.bits >> 15 ? -size : size;
}

static void from_float(float value, Half& result) {
    const float size = std::fabs(value);
    int exponent;
    std::frexp(size, &exponent);
    if (size < 0x1p-14f) exponent = -13;  // below, the steps stay as they are
    const float steps = std::nearbyint(std::ldexp(size, 11 - exponent));
    const int bits = size != size ? 0x7e00 : size >= 65520 ? 0x7c00 : ((exponent + 13) << 10) + int(steps);
    result.bits = (std::signbit(value) ? 0x8000 : 0) | bits;
}

#define LAUNCHER(name, T)                                                                                              \
    extern "C" void launch_##name(unsigned first_block, unsigned blocks, unsigned threads, const T* features,          \
                                  const float* points, int B, int D, int H, int W, int C, int P, T* samples) {         \
        blockDim.x = threads;                                                                                          \
        for (blockIdx.x = first_block; blockIdx.x < first_block + blocks; ++blockIdx.x)                                \
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)                                                \
                name(features, points, B, D, H, W, C, P, samples);                                                     \
    }

LAUNCHER(trilinear_sample_3d_f32, float)
LAUNCHER(trilinear_sample_3d_f16, Half)
LAUNCHER(trilinear_sample_3d_bf16, BFloat16)
