// What the operator accepts. Each check returns nullptr, or what is wrong (static text).
#pragma once

#include <initializer_list>

#include <NvInferRuntime.h>

#include "launch.h"

namespace jotr
{

inline bool toElement(nvinfer1::DataType type, Element& element) noexcept
{
    switch (type)
    {
    case nvinfer1::DataType::kFLOAT: element = Element::kFloat; return true;
    case nvinfer1::DataType::kHALF: element = Element::kHalf; return true;
    case nvinfer1::DataType::kBF16: element = Element::kBfloat16; return true;
    default: return false;
    }
}

/// nullptr, or what is wrong with these types.
inline char const* wrongTypes(nvinfer1::DataType features, nvinfer1::DataType points) noexcept
{
    Element element;
    if (!toElement(features, element))
    {
        return "features must be float32, float16 or bfloat16";
    }
    return points == nvinfer1::DataType::kFLOAT ? nullptr : "points must be float32";
}

/// Reads the sizes of one call; nullptr, or what is wrong with its shapes.
inline char const* readSizes(
    nvinfer1::PluginTensorDesc const* in, nvinfer1::PluginTensorDesc const* out, Sizes& sizes) noexcept
{
    nvinfer1::Dims const& features = in[0].dims;
    nvinfer1::Dims const& points = in[1].dims;
    nvinfer1::Dims const& samples = out[0].dims;
    if (features.nbDims != 5 || points.nbDims != 3 || samples.nbDims != 3)
    {
        return "features must be [B,D,H,W,C], points [B,P,3] and samples [B,P,C]";
    }
    for (nvinfer1::Dims const* dims : {&features, &points, &samples})
    {
        for (int32_t axis = 0; axis < dims->nbDims; ++axis)
        {
            if (dims->d[axis] < 0 || dims->d[axis] > INT32_MAX)
            {
                return "a dimension is negative or beyond 2^31";
            }
        }
    }
    auto const size = [](nvinfer1::Dims const& dims, int32_t axis) { return static_cast<int32_t>(dims.d[axis]); };
    sizes = {size(features, 0), size(features, 1), size(features, 2), size(features, 3), size(features, 4),
        size(points, 1)};
    if (points.d[0] != sizes.B || points.d[2] != 3)
    {
        return "points must be [B,P,3] with the batch of the features";
    }
    if (samples.d[0] != sizes.B || samples.d[1] != sizes.P || samples.d[2] != sizes.C)
    {
        return "samples must be [B,P,C]";
    }
    return nullptr;
}

} // namespace jotr
