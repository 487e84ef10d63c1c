// `enqueue` on a real GPU, where there is one.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "gpu.h"

namespace
{

using harness::Call;
using harness::DeviceBuffer;
using harness::Graph;
using harness::Kind;
using harness::Report;
using harness::succeeded;
using nvinfer1::DataType;
using nvinfer1::IPluginV3OneRuntime;
using Bytes = std::vector<unsigned char>;

struct Case
{
    char const* name;
    int64_t B, D, H, W, C, P;
};

constexpr Case kCASES[] = {
    {"the published network", 1, 8, 8, 8, 256, 15},
    {"a batch", 5, 8, 8, 8, 256, 15},
    {"unequal sides", 2, 2, 5, 9, 8, 40},
    {"odd channels", 3, 3, 4, 5, 13, 33},
    {"one channel", 1, 3, 4, 5, 1, 7},
    {"one voxel", 1, 1, 1, 1, 16, 9},
    {"many points", 1, 4, 4, 4, 24, 5000},
};

// Coordinates are rounded to float32 before the cell is found: sides up to 9 and features in -1..1 stay below this.
constexpr double kARITHMETIC = 1e-5;
constexpr size_t kGUARD = 256;

double decode(DataType type, unsigned char const* from)
{
    uint16_t bits;
    std::memcpy(&bits, from, sizeof(bits));
    float value;
    switch (type)
    {
    case DataType::kHALF:
    {
        int const exponent = bits >> 10 & 0x1f;
        double const magnitude = exponent == 0x1f ? NAN
            : exponent == 0                       ? std::ldexp(bits & 0x3ff, -24)
                                                  : std::ldexp((bits & 0x3ff) + 0x400, exponent - 25);
        return bits >> 15 ? -magnitude : magnitude;
    }
    case DataType::kBF16:
    {
        uint32_t const wide = static_cast<uint32_t>(bits) << 16;
        std::memcpy(&value, &wide, sizeof(value));
        return value;
    }
    default: std::memcpy(&value, from, sizeof(value)); return value;
    }
}

/// Whole sixty-fourths in -1..1: every type holds them exactly.
Bytes randomFeatures(Case const& c, Kind const& kind)
{
    std::mt19937 random(1);
    std::uniform_int_distribution<int> uniform(-64, 64);
    Bytes features(c.B * c.D * c.H * c.W * c.C * kind.bytes);
    for (size_t at = 0; at < features.size(); at += kind.bytes)
    {
        float const value = static_cast<float>(uniform(random)) / 64;
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof(bits));
        uint32_t const sign = bits >> 31;
        uint32_t const half = value == 0 ? 0 : sign << 15 | ((bits >> 13 & 0x3ffff) - ((127 - 15) << 10));
        uint32_t const encoded = kind.type == DataType::kHALF ? half : kind.type == DataType::kBF16 ? bits >> 16 : bits;
        std::memcpy(&features[at], &encoded, kind.bytes); // the low bytes come first on every machine TensorRT runs on
    }
    return features;
}

/// Inside, on the border, just and far outside, then anywhere around the volume.
std::vector<float> randomPoints(Case const& c)
{
    float const special[] = {0.F, 1.F, 0.5F, -0.1F, 1.05F, std::nextafter(1.F, 2.F), -1e-7F, 5.F, -3.F, 1e6F, -1e9F};
    std::mt19937 random(2);
    std::uniform_real_distribution<float> uniform(-0.3F, 1.3F);
    std::uniform_int_distribution<size_t> choice(0, std::size(special) - 1);
    std::vector<float> points(c.B * c.P * 3);
    for (size_t i = 0; i < points.size(); ++i)
    {
        points[i] = i % 4 == 0 ? special[choice(random)] : uniform(random);
    }
    return points;
}

/// The definition in float64: eight corners, zero outside.
double sampleAt(
    Case const& c, Kind const& kind, Bytes const& features, float const* point, int64_t b, int64_t channel)
{
    int64_t const sides[] = {c.W, c.H, c.D};
    int64_t corner[3];
    double fraction[3];
    for (int axis = 0; axis < 3; ++axis)
    {
        double const cell = static_cast<double>(point[axis]) * static_cast<double>(sides[axis] - 1);
        corner[axis] = static_cast<int64_t>(std::floor(cell));
        fraction[axis] = cell - std::floor(cell);
    }
    double sum = 0;
    for (int offset = 0; offset < 8; ++offset)
    {
        double weight = 1;
        int64_t at[3];
        bool inside = true;
        for (int axis = 0; axis < 3; ++axis)
        {
            int const step = offset >> axis & 1;
            at[axis] = corner[axis] + step;
            weight *= step ? fraction[axis] : 1 - fraction[axis];
            inside &= at[axis] >= 0 && at[axis] < sides[axis];
        }
        if (inside)
        {
            int64_t const voxel = ((b * c.D + at[2]) * c.H + at[1]) * c.W + at[0];
            sum += weight * decode(kind.type, &features[(voxel * c.C + channel) * kind.bytes]);
        }
    }
    return sum;
}

/// Largest difference beyond the type's own rounding; infinite for NaN.
double worstError(Case const& c, Kind const& kind, Bytes const& features, std::vector<float> const& points,
    Bytes const& samples)
{
    double worst = 0;
    for (int64_t row = 0; row < c.B * c.P; ++row)
    {
        for (int64_t channel = 0; channel < c.C; ++channel)
        {
            double const exact = sampleAt(c, kind, features, &points[row * 3], row / c.P, channel);
            double const got = decode(kind.type, &samples[(row * c.C + channel) * kind.bytes]);
            double const error = std::abs(got - exact) - kind.rounding * std::abs(exact);
            worst = std::isnan(error) ? INFINITY : std::max(worst, error);
        }
    }
    return worst;
}

/// Runs `work` on a stream over samples of which nobody has written any (all bits set is NaN in every type).
bool run(DeviceBuffer const& samples, cudaStream_t stream, std::function<bool()> const& work, Bytes& result)
{
    return succeeded(cudaMemsetAsync(samples.data(), 0xff, result.size(), stream)) && work()
        && succeeded(cudaStreamSynchronize(stream))
        && succeeded(cudaMemcpy(result.data(), samples.data(), result.size(), cudaMemcpyDeviceToHost));
}

void checkCase(Report& report, IPluginV3OneRuntime& runtime, Case const& c, Kind const& kind, cudaStream_t stream)
{
    std::string const name = std::string(kind.name) + ", " + c.name;
    Call const call(kind.type, c.B, c.D, c.H, c.W, c.C, c.P);
    Bytes const features = randomFeatures(c, kind);
    std::vector<float> const points = randomPoints(c);
    size_t const size = c.B * c.P * c.C * kind.bytes;
    DeviceBuffer const onFeatures(features.size()), onPoints(points.size() * sizeof(float)), onSamples(size + kGUARD);
    void const* const inputs[] = {onFeatures.data(), onPoints.data()};
    void* const outputs[] = {onSamples.data()};
    auto const queue = [&] { return runtime.enqueue(call.in, call.out, inputs, outputs, nullptr, stream) == 0; };

    Bytes plain(size + kGUARD), replayed(size + kGUARD);
    if (!onFeatures.load(features.data()) || !onPoints.load(points.data())
        || runtime.onShapeChange(call.in, 2, call.out, 1) != 0 || !run(onSamples, stream, queue, plain))
    {
        report.check(false, "enqueue runs: " + name);
        return;
    }
    char figure[48];
    double const error = worstError(c, kind, features, points, plain);
    std::snprintf(figure, sizeof(figure), " (%.1e beyond rounding)", error);
    report.check(error <= kARITHMETIC, "enqueue against float64: " + name + figure);
    report.check(std::all_of(&plain[size], &plain[size] + kGUARD, [](unsigned char byte) { return byte == 0xff; }),
        "nothing is written behind the samples: " + name);
    Graph const graph(stream, queue);
    report.check(run(onSamples, stream, [&] { return graph.launch(stream); }, replayed) && replayed == plain,
        "the same from a CUDA graph: " + name);
}

} // namespace

void harness::checkEnqueue(Report& report, IPluginV3OneRuntime& runtime)
{
    if (!hasGpu(report))
    {
        Call const call(DataType::kFLOAT, 1, 8, 8, 8, 256, 15);
        void const* inputs[2]{};
        void* outputs[1]{};
        report.check(runtime.enqueue(call.in, call.out, inputs, outputs, nullptr, nullptr) != 0,
            "enqueue without a GPU fails and returns");
        report.note("enqueue: not run (no GPU)");
        return;
    }
    Stream const stream;
    for (Kind const& kind : kKINDS)
    {
        for (Case const& c : kCASES)
        {
            checkCase(report, runtime, c, kind, stream.handle());
        }
    }
}
