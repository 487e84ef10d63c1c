// The sampling operator jotr::TrilinearSample3D in CUDA; what it means is defined in __init__.py and reference.py.
//
// A thread gathers eight neighbouring channels of one point: launch blocks of 128 threads, as many blocks as
// ceil(B * P * ceil(C / 8) / 128). Where C is a multiple of 8 (and the tensors start at a multiple of 16 bytes) the
// channels move 16 bytes at a time; otherwise one by one, because then no row but the first is sure to be aligned.
//
// No header is included, so that NVRTC compiles this file on a machine without a CUDA toolkit. Hence the two 16-bit
// types are bits: float16 is converted by the instructions that every GPU has, bfloat16 by integers, since its
// instructions begin with compute capability 8.0 (rounding) and 9.0 (widening).

struct Half {
    unsigned short bits;
};

struct BFloat16 {
    unsigned short bits;
};

// A C++ compiler that is given these two and CUDA's built-ins runs the rest of this file on the CPU.
#ifdef __CUDACC__
__device__ __forceinline__ float to_float(Half value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}

__device__ __forceinline__ void from_float(float value, Half& result) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
}
#endif

__device__ __forceinline__ float to_float(BFloat16 value) {
    return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

// To nearest, ties to even; the carry may run into the exponent: the next binade, beyond the last one infinity.
__device__ __forceinline__ void from_float(float value, BFloat16& result) {
    const unsigned bits = __float_as_uint(value);
    const bool is_nan = value != value;
    result.bits = is_nan ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

__device__ __forceinline__ float to_float(float value) { return value; }

__device__ __forceinline__ void from_float(float value, float& result) { result = value; }

// Two neighbours along one side of the volume: how far away in memory, in elements, and how much each one weighs. Both
// lie inside; where neither is near the point both weigh nothing, which is zero padding.
struct Neighbours {
    size_t offset[2];
    float weight[2];
};

// The weight is the hat max(0, 1 - |cell - i|), and `cell` is rounded to float32 before the difference is taken, as in
// the operator's other forms. A NaN coordinate gives NaN, as there, since the comparison with 0 lets it pass; one so
// large that `cell` is infinite weighs nothing.
__device__ __forceinline__ Neighbours along(float coordinate, int size, size_t stride) {
    const float cell = __fmul_rn(coordinate, static_cast<float>(size - 1));
    const int low = static_cast<int>(fmaxf(fminf(floorf(cell), static_cast<float>(size - 2)), 0.0f));
    Neighbours both;
#pragma unroll
    for (int side = 0; side < 2; ++side) {
        const float hat = 1.0f - fabsf(cell - static_cast<float>(low + side));
        both.offset[side] = min(low + side, size - 1) * stride;
        both.weight[side] = hat < 0.0f ? 0.0f : hat;
    }
    return both;
}

template <typename T>
struct alignas(16) Octet {
    T channel[8];
};

template <typename T>
__device__ __forceinline__ void sample(const T* __restrict__ features, const float* __restrict__ points, int B, int D,
                                       int H, int W, int C, int P, T* __restrict__ samples) {
    const int octets = (C + 7) / 8;
    const size_t thread = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t point = thread / octets;
    if (point >= static_cast<size_t>(B) * P) return;
    const int first = static_cast<int>(thread - point * octets) * 8;

    const size_t row = static_cast<size_t>(W) * C, slice = H * row;
    const Neighbours x = along(points[3 * point], W, C);
    const Neighbours y = along(points[3 * point + 1], H, row);
    const Neighbours z = along(points[3 * point + 2], D, slice);
    const T* volume = features + point / P * D * slice + first;
    size_t offset[8];
    float weight[8];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
        const int i = n & 1, j = n >> 1 & 1, k = n >> 2;
        offset[n] = z.offset[k] + y.offset[j] + x.offset[i];
        weight[n] = z.weight[k] * y.weight[j] * x.weight[i];
    }

    T* target = samples + point * C + first;
    const size_t addresses = reinterpret_cast<size_t>(features) | reinterpret_cast<size_t>(samples);
    if (C % 8 == 0 && addresses % alignof(Octet<T>) == 0) {
        Octet<T> voxel[8];
#pragma unroll
        for (int n = 0; n < 8; ++n) voxel[n] = *reinterpret_cast<const Octet<T>*>(volume + offset[n]);
        Octet<T> result;
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < 8; ++n) sum += weight[n] * to_float(voxel[n].channel[c]);
            from_float(sum, result.channel[c]);
        }
        *reinterpret_cast<Octet<T>*>(target) = result;
    } else {
        for (int c = 0; c < 8 && first + c < C; ++c) {
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < 8; ++n) sum += weight[n] * to_float(volume[offset[n] + c]);
            from_float(sum, target[c]);
        }
    }
}

// Inputs, sizes, output: the order in which TensorRT passes the arguments of an ahead-of-time plugin. Four blocks a
// multiprocessor leave a thread the registers to have all eight voxels in flight.
#define ENTRY_POINT(name, T)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128, 4)                                                             \
        name(const T* __restrict__ features, const float* __restrict__ points, int B, int D, int H, int W, int C,    \
             int P, T* __restrict__ samples) {                                                                       \
        sample(features, points, B, D, H, W, C, P, samples);                                                         \
    }

ENTRY_POINT(trilinear_sample_3d_f32, float)
ENTRY_POINT(trilinear_sample_3d_f16, Half)
ENTRY_POINT(trilinear_sample_3d_bf16, BFloat16)
