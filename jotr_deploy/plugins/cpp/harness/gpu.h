// The CUDA side of the harness: device memory and captured graphs.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include <cuda_runtime_api.h>

#include "harness.h"

namespace harness
{

inline bool succeeded(cudaError_t status)
{
    if (status != cudaSuccess)
    {
        std::printf("# CUDA: %s\n", cudaGetErrorString(status));
    }
    return status == cudaSuccess;
}

class DeviceBuffer
{
public:
    explicit DeviceBuffer(size_t size)
        : mSize(size)
    {
        if (!succeeded(cudaMalloc(&mData, size)))
        {
            mData = nullptr;
        }
    }
    DeviceBuffer(DeviceBuffer const&) = delete;
    DeviceBuffer& operator=(DeviceBuffer const&) = delete;
    ~DeviceBuffer()
    {
        cudaFree(mData);
    }

    bool load(void const* from) const
    {
        return succeeded(cudaMemcpy(mData, from, mSize, cudaMemcpyHostToDevice));
    }

    void* data() const
    {
        return mData;
    }

private:
    void* mData{nullptr};
    size_t mSize;
};

/// As TensorRT is given one: not the default stream, not ordered with it.
class Stream
{
public:
    Stream()
    {
        succeeded(cudaStreamCreateWithFlags(&mHandle, cudaStreamNonBlocking));
    }
    Stream(Stream const&) = delete;
    Stream& operator=(Stream const&) = delete;
    ~Stream()
    {
        cudaStreamDestroy(mHandle);
    }

    cudaStream_t handle() const
    {
        return mHandle;
    }

private:
    cudaStream_t mHandle{nullptr};
};

/// A captured graph: what allocates or synchronises cannot be captured.
class Graph
{
public:
    Graph(cudaStream_t stream, std::function<bool()> const& queue)
    {
        bool captured = succeeded(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        captured = captured && queue();
        captured = succeeded(cudaStreamEndCapture(stream, &mGraph)) && captured;
        if (!captured || !succeeded(cudaGraphInstantiateWithFlags(&mExecutable, mGraph, 0)))
        {
            mExecutable = nullptr;
        }
    }
    Graph(Graph const&) = delete;
    Graph& operator=(Graph const&) = delete;
    ~Graph()
    {
        if (mExecutable != nullptr)
        {
            cudaGraphExecDestroy(mExecutable);
        }
        if (mGraph != nullptr)
        {
            cudaGraphDestroy(mGraph);
        }
    }

    bool launch(cudaStream_t stream) const
    {
        return mExecutable != nullptr && succeeded(cudaGraphLaunch(mExecutable, stream));
    }

private:
    cudaGraph_t mGraph{nullptr};
    cudaGraphExec_t mExecutable{nullptr};
};

inline bool hasGpu(Report& report)
{
    int devices = 0;
    cudaError_t const status = cudaGetDeviceCount(&devices);
    cudaDeviceProp properties{};
    bool const present = status == cudaSuccess && devices > 0
        && cudaGetDeviceProperties(&properties, 0) == cudaSuccess;
    if (present)
    {
        report.note(std::string("GPU: ") + properties.name + ", compute capability " + std::to_string(properties.major)
            + "." + std::to_string(properties.minor));
    }
    return present;
}

/// Element type with its name, and half the distance between neighbours around one.
struct Kind
{
    nvinfer1::DataType type;
    char const* name;
    size_t bytes;
    double rounding;
};

constexpr Kind kKINDS[] = {{nvinfer1::DataType::kFLOAT, "float32", 4, 0x1p-24},
    {nvinfer1::DataType::kHALF, "float16", 2, 0x1p-11}, {nvinfer1::DataType::kBF16, "bfloat16", 2, 0x1p-8}};

} // namespace harness
