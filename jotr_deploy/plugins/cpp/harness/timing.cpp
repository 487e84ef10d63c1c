// How long the library's `enqueue` takes at the size of the published network, on a GPU: timing LIBRARY
#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <vector>

#include "gpu.h"
#include "library.h"

namespace
{

using namespace harness;

constexpr int kCALLS = 200;
constexpr int kROUNDS = 20;
constexpr int64_t kSIDE = 8;
constexpr int64_t kCHANNELS = 256;
constexpr int64_t kPOINTS = 15;

std::vector<float> randomPoints(int64_t batch)
{
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform(0.F, 1.F);
    std::vector<float> points(batch * kPOINTS * 3);
    for (float& coordinate : points)
    {
        coordinate = uniform(random);
    }
    return points;
}

/// Microseconds a call on the host: queueing only, the fastest of kROUNDS.
double onHost(std::function<bool()> const& queue, cudaStream_t stream)
{
    double best = INFINITY;
    for (int round = 0; round < kROUNDS; ++round)
    {
        bool done = succeeded(cudaStreamSynchronize(stream));
        auto const start = std::chrono::steady_clock::now();
        for (int call = 0; call < kCALLS; ++call)
        {
            done = queue() && done;
        }
        std::chrono::duration<double, std::micro> const taken = std::chrono::steady_clock::now() - start;
        best = done ? std::min(best, taken.count()) : NAN;
    }
    return best / kCALLS;
}

/// Microseconds a call on the GPU: kCALLS of them in one CUDA graph, the fastest of kROUNDS.
double onGpu(std::function<bool()> const& queue, cudaStream_t stream)
{
    Graph const graph(stream, [&] {
        bool done = true;
        for (int call = 0; call < kCALLS; ++call)
        {
            done = queue() && done;
        }
        return done;
    });
    cudaEvent_t start = nullptr;
    cudaEvent_t stop = nullptr;
    succeeded(cudaEventCreate(&start));
    succeeded(cudaEventCreate(&stop));
    double best = INFINITY;
    for (int round = 0; round < kROUNDS; ++round)
    {
        float taken_ms = 0;
        bool const done = succeeded(cudaEventRecord(start, stream)) && graph.launch(stream)
            && succeeded(cudaEventRecord(stop, stream)) && succeeded(cudaEventSynchronize(stop))
            && succeeded(cudaEventElapsedTime(&taken_ms, start, stop));
        best = done ? std::min(best, taken_ms * 1e3) : NAN;
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    return best / kCALLS;
}

void timeCase(Report& report, nvinfer1::IPluginV3OneRuntime& runtime, Kind const& kind, int64_t batch)
{
    Call const call(kind.type, batch, kSIDE, kSIDE, kSIDE, kCHANNELS, kPOINTS);
    std::vector<float> const points = randomPoints(batch);
    // Bytes of 0x3c are a number near one (float32: near a hundredth) in each type.
    std::vector<unsigned char> const features(batch * kSIDE * kSIDE * kSIDE * kCHANNELS * kind.bytes, 0x3c);
    DeviceBuffer const onFeatures(features.size());
    DeviceBuffer const onPoints(points.size() * sizeof(float));
    DeviceBuffer const onSamples(batch * kPOINTS * kCHANNELS * kind.bytes);
    void const* const inputs[] = {onFeatures.data(), onPoints.data()};
    void* const outputs[] = {onSamples.data()};
    Stream const stream;
    auto const queue
        = [&] { return runtime.enqueue(call.in, call.out, inputs, outputs, nullptr, stream.handle()) == 0; };
    bool const ready = onFeatures.load(features.data()) && onPoints.load(points.data()) && queue();
    double const host = ready ? onHost(queue, stream.handle()) : NAN;
    double const gpu = ready ? onGpu(queue, stream.handle()) : NAN;
    char line[96];
    std::snprintf(line, sizeof(line), "%s, batch %d: %.2f us on the host, %.2f us on the GPU", kind.name,
        static_cast<int>(batch), host, gpu);
    report.check(std::isfinite(host) && std::isfinite(gpu), line);
}

} // namespace

int main(int count, char** arguments)
{
    Library library{};
    if (!harness::open(count, arguments, library))
    {
        return 2;
    }
    Report report;
    nvinfer1::IPluginCreatorV3One* const creator = onlyCreator(library);
    constexpr auto kRUN = nvinfer1::TensorRTPhase::kRUNTIME;
    Driven driven(creator != nullptr ? creator->createPlugin("sample", nullptr, kRUN) : nullptr);
    if (!driven.complete() || !hasGpu(report))
    {
        report.note("not run (no GPU)");
        return 1;
    }
    report.note("per enqueue, one after the other on the same tensors (warm caches)");
    for (Kind const& kind : kKINDS)
    {
        for (int64_t const batch : {1, 8, 64})
        {
            timeCase(report, *driven.runtime, kind, batch);
        }
    }
    return report.finish();
}
