// A stand-in for the CUDA runtime where there is no CUDA toolkit: "device" memory is memory, a kernel is a loop over
// its threads. Only what the plugin and the harness use; it exists to test them, not to run networks.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

enum cudaError_t
{
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorStreamCaptureUnsupported = 900
};

struct dim3
{
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
        : x(x_)
        , y(y_)
        , z(z_)
    {
    }
    unsigned x, y, z;
};

using Work = std::function<void()>;

/// A stream runs its work at once, except while a graph is captured.
struct CUstream_st
{
    bool capturing{false};
    std::vector<Work> captured;
};

struct CUgraph_st
{
    std::vector<Work> works;
};

typedef CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
typedef CUgraph_st* cudaGraph_t;
typedef CUgraph_st* cudaGraphExec_t;

struct cudaDeviceProp
{
    char name[256];
    int major;
    int minor;
};

enum cudaMemcpyKind
{
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost
};
enum cudaStreamCaptureMode
{
    cudaStreamCaptureModeThreadLocal
};
constexpr unsigned cudaStreamNonBlocking = 1;

inline char const* cudaGetErrorString(cudaError_t status)
{
    return status == cudaErrorInvalidValue ? "invalid argument" : status == cudaSuccess ? "no error" : "refused";
}

inline cudaError_t cudaGetDeviceCount(int* count)
{
    *count = 1;
    return cudaSuccess;
}

inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int)
{
    *properties = {"none, the kernel runs on the CPU", 0, 0};
    return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** data, size_t size)
{
    *data = std::aligned_alloc(256, (size + 255) / 256 * 256);
    return *data != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

inline cudaError_t cudaFree(void* data)
{
    std::free(data);
    return cudaSuccess;
}

inline cudaError_t cudaMemcpy(void* to, void const* from, size_t size, cudaMemcpyKind)
{
    std::memcpy(to, from, size);
    return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned)
{
    *stream = new CUstream_st;
    return cudaSuccess;
}

inline cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return stream->capturing ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

inline cudaError_t queueWork(cudaStream_t stream, Work work)
{
    if (stream == nullptr)
    {
        return cudaErrorInvalidValue; // the default stream: nothing here may use it
    }
    if (stream->capturing)
    {
        stream->captured.push_back(work);
    }
    else
    {
        work();
    }
    return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* data, int value, size_t size, cudaStream_t stream)
{
    return queueWork(stream, [=] { std::memset(data, value, size); });
}

inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    stream->capturing = true;
    return cudaSuccess;
}

inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph)
{
    stream->capturing = false;
    *graph = new CUgraph_st{std::move(stream->captured)};
    stream->captured.clear();
    return cudaSuccess;
}

inline cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long)
{
    *executable = new CUgraph_st(*graph);
    return cudaSuccess;
}

inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    for (Work const& work : executable->works)
    {
        queueWork(stream, work);
    }
    return cudaSuccess;
}

inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete executable;
    return cudaSuccess;
}

inline cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
