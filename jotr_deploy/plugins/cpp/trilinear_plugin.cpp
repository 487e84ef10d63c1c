// The operator jotr::TrilinearSample3D as a TensorRT plugin, TensorRT 10.0 and later.
//
// features T [B,D,H,W,C], points float32 [B,P,3] -> samples T [B,P,C], T float32, float16 or bfloat16; no attributes.
// Everything TensorRT calls is noexcept, stateless and safe to call from several threads.
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <new>

#include <NvInferRuntime.h>

#include "contract.h"
#include "launch.h"

#define JOTR_TEXT_OF(tokens) #tokens
#define JOTR_TEXT(macro) JOTR_TEXT_OF(macro)

namespace
{

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;

constexpr char const* kNAME = "TrilinearSample3D";
constexpr char const* kVERSION = "1";
constexpr char const* kNAMESPACE = "jotr";
constexpr PluginFieldCollection kNO_FIELDS{0, nullptr};
constexpr int32_t kSUCCESS = 0;
constexpr int32_t kFAILURE = 1;
constexpr char const* kWRONG_COUNT = "takes features and points, gives samples";

std::atomic<nvinfer1::ILoggerFinder*> gLoggerFinder{nullptr};

/// Tells TensorRT's own logger, if it gave one, why the plugin is about to refuse.
void report(char const* format, ...) noexcept
{
    char text[256];
    int const prefix = std::snprintf(text, sizeof(text), "%s::%s: ", kNAMESPACE, kNAME);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text + prefix, sizeof(text) - prefix, format, arguments);
    va_end(arguments);
    try
    {
        nvinfer1::ILoggerFinder* const finder = gLoggerFinder.load();
        nvinfer1::ILogger* const logger = finder != nullptr ? finder->findLogger() : nullptr;
        if (logger != nullptr)
        {
            logger->log(nvinfer1::ILogger::Severity::kERROR, text);
        }
    }
    catch (...) // findLogger is not noexcept, and a logger is the application's own code
    {
    }
}

int32_t refuse(char const* reason) noexcept
{
    report("%s", reason);
    return kFAILURE;
}

class TrilinearSample3D final : public nvinfer1::IPluginV3,
                                public nvinfer1::IPluginV3OneCore,
                                public nvinfer1::IPluginV3OneBuild,
                                public nvinfer1::IPluginV3OneRuntime
{
public:
    // IPluginV3

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    nvinfer1::IPluginV3* clone() noexcept override
    {
        return new (std::nothrow) TrilinearSample3D();
    }

    // IPluginV3OneCore

    char const* getPluginName() const noexcept override
    {
        return kNAME;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVERSION;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return kNAMESPACE;
    }

    // IPluginV3OneBuild

    int32_t getNbOutputs() const noexcept override
    {
        return 1;
    }

    int32_t getOutputDataTypes(
        DataType* outputTypes, int32_t nbOutputs, DataType const* inputTypes, int32_t nbInputs) const noexcept override
    {
        if (nbInputs != 2 || nbOutputs != 1 || inputTypes == nullptr || outputTypes == nullptr)
        {
            return refuse(kWRONG_COUNT);
        }
        if (char const* const wrong = jotr::wrongTypes(inputTypes[0], inputTypes[1]))
        {
            return refuse(wrong);
        }
        outputTypes[0] = inputTypes[0];
        return kSUCCESS;
    }

    int32_t getOutputShapes(DimsExprs const* inputs, int32_t nbInputs, DimsExprs const* /* shapeInputs */,
        int32_t nbShapeInputs, DimsExprs* outputs, int32_t nbOutputs,
        nvinfer1::IExprBuilder& /* exprBuilder */) noexcept override
    {
        if (nbInputs != 2 || nbShapeInputs != 0 || nbOutputs != 1 || inputs == nullptr || outputs == nullptr)
        {
            return refuse(kWRONG_COUNT);
        }
        DimsExprs const& features = inputs[0];
        DimsExprs const& points = inputs[1];
        if (features.nbDims != 5 || points.nbDims != 3)
        {
            return refuse("features must be [B,D,H,W,C] and points [B,P,3]");
        }
        if (points.d[2]->isConstant() && points.d[2]->getConstantValue() != 3)
        {
            return refuse("the last dimension of points must be 3");
        }
        bool const batchesKnown = features.d[0]->isConstant() && points.d[0]->isConstant();
        if (batchesKnown && features.d[0]->getConstantValue() != points.d[0]->getConstantValue())
        {
            return refuse("features and points must have the same batch");
        }
        outputs[0].nbDims = 3;
        outputs[0].d[0] = features.d[0];
        outputs[0].d[1] = points.d[1];
        outputs[0].d[2] = features.d[4];
        return kSUCCESS;
    }

    bool supportsFormatCombination(
        int32_t pos, DynamicPluginTensorDesc const* inOut, int32_t nbInputs, int32_t nbOutputs) noexcept override
    {
        // Only entries up to pos are set. Channels last is the tensor's own order of dimensions here: linear.
        if (nbInputs != 2 || nbOutputs != 1 || inOut == nullptr || pos < 0 || pos > 2
            || inOut[pos].desc.format != nvinfer1::TensorFormat::kLINEAR)
        {
            return false;
        }
        DataType const type = inOut[pos].desc.type;
        switch (pos)
        {
        case 0: return jotr::wrongTypes(type, DataType::kFLOAT) == nullptr;
        case 1: return type == DataType::kFLOAT;
        default: return type == inOut[0].desc.type;
        }
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t nbInputs, DynamicPluginTensorDesc const* out,
        int32_t nbOutputs) noexcept override
    {
        if (nbInputs != 2 || nbOutputs != 1 || in == nullptr || out == nullptr)
        {
            return refuse(kWRONG_COUNT);
        }
        char const* const wrong = jotr::wrongTypes(in[0].desc.type, in[1].desc.type);
        return wrong != nullptr ? refuse(wrong) : kSUCCESS;
    }

    char const* getTimingCacheID() noexcept override
    {
        return JOTR_FINGERPRINT;
    }

    // Shown by the engine inspector; looked for in the library's bytes before it is loaded.
    char const* getMetadataString() noexcept override
    {
        return "jotr::TrilinearSample3D " JOTR_FINGERPRINT " TensorRT " JOTR_TEXT(NV_TENSORRT_MAJOR);
    }

    // IPluginV3OneRuntime

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t nbInputs, PluginTensorDesc const* out,
        int32_t nbOutputs) noexcept override
    {
        if (nbInputs != 2 || nbOutputs != 1 || in == nullptr || out == nullptr)
        {
            return refuse(kWRONG_COUNT);
        }
        jotr::Sizes sizes;
        char const* const wrong = jotr::readSizes(in, out, sizes);
        return wrong != nullptr ? refuse(wrong) : kSUCCESS;
    }

    int32_t enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const* outputDesc, void const* const* inputs,
        void* const* outputs, void* /* workspace */, cudaStream_t stream) noexcept override
    {
        if (inputDesc == nullptr || outputDesc == nullptr || inputs == nullptr || outputs == nullptr)
        {
            return refuse("enqueue was given no tensors");
        }
        jotr::Sizes sizes;
        char const* wrong = jotr::readSizes(inputDesc, outputDesc, sizes);
        jotr::Element element;
        if (wrong == nullptr && !jotr::toElement(inputDesc[0].type, element))
        {
            wrong = "features must be float32, float16 or bfloat16";
        }
        if (wrong == nullptr)
        {
            wrong = jotr::launch(element, inputs[0], inputs[1], sizes, outputs[0], stream);
        }
        return wrong != nullptr ? refuse(wrong) : kSUCCESS;
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* /* context */) noexcept override
    {
        return clone();
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override
    {
        return &kNO_FIELDS;
    }
};

class TrilinearSample3DCreator final : public nvinfer1::IPluginCreatorV3One
{
public:
    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* /* name */, PluginFieldCollection const* fields,
        nvinfer1::TensorRTPhase /* phase */) noexcept override
    {
        if (fields != nullptr && fields->nbFields != 0)
        {
            bool const named = fields->nbFields > 0 && fields->fields != nullptr && fields->fields[0].name != nullptr;
            report("has no attributes, but was given '%s'", named ? fields->fields[0].name : "?");
            return nullptr;
        }
        return new (std::nothrow) TrilinearSample3D();
    }

    PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &kNO_FIELDS;
    }

    char const* getPluginName() const noexcept override
    {
        return kNAME;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVERSION;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return kNAMESPACE;
    }
};

} // namespace

// The layout of ILoggerFinder changed between TensorRT 10 and 11: a library serves the major version of its headers.
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    gLoggerFinder.store(finder);
}

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(
    int32_t& nbCreators)
{
    static TrilinearSample3DCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    nbCreators = 1;
    return creators;
}
