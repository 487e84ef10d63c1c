// What the parts of the harness share: the protocol it prints, and the stand-ins for what TensorRT would bring.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include <NvInferRuntime.h>

namespace harness
{

/// Prints one TAP line a check and counts them.
class Report
{
public:
    void check(bool passed, std::string const& name)
    {
        ++(passed ? mPassed : mFailed);
        std::printf("%s %d - %s\n", passed ? "ok" : "not ok", mPassed + mFailed, name.c_str());
    }

    void note(std::string const& text)
    {
        std::printf("# %s\n", text.c_str());
    }

    /// The last line, and the exit code.
    int finish()
    {
        std::printf("1..%d\n%d passed, %d failed\n", mPassed + mFailed, mPassed, mFailed);
        return mFailed == 0 && mPassed > 0 ? 0 : 1;
    }

private:
    int mPassed{0};
    int mFailed{0};
};

/// A dimension while an engine is built: a number, known to the plugin or not.
class Dimension final : public nvinfer1::IDimensionExpr
{
public:
    Dimension(int64_t value, bool constant)
        : mState(value, constant)
    {
        mImpl = &mState;
    }
    ~Dimension() noexcept override = default;

    int64_t value() const
    {
        return mState.value;
    }

private:
    struct State final : nvinfer1::apiv::VDimensionExpr
    {
        State(int64_t v, bool c)
            : value(v)
            , constant(c)
        {
        }
        bool isConstant() const override
        {
            return constant;
        }
        int64_t getConstantValue() const override
        {
            return constant ? value : INT64_MIN;
        }
        bool isSizeTensor() const override
        {
            return false;
        }
        int64_t value;
        bool constant;
    };

    State mState;
};

/// Makes dimensions, as TensorRT's expression builder does, and keeps them alive.
class Dimensions final : public nvinfer1::IExprBuilder
{
public:
    Dimensions()
    {
        mImpl = &mState;
    }
    ~Dimensions() noexcept override = default;

    Dimension const* known(int64_t value)
    {
        return mState.make(value, true);
    }

    /// Dynamic: a number the plugin must not learn.
    Dimension const* unknown(int64_t value)
    {
        return mState.make(value, false);
    }

    static int64_t valueOf(nvinfer1::IDimensionExpr const* expression)
    {
        return static_cast<Dimension const*>(expression)->value();
    }

private:
    struct State final : nvinfer1::apiv::VExprBuilder
    {
        Dimension const* make(int64_t value, bool constant)
        {
            made.emplace_back(value, constant);
            return &made.back();
        }
        nvinfer1::IDimensionExpr const* constant(int64_t value) override
        {
            return make(value, true);
        }
        nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation,
            nvinfer1::IDimensionExpr const&, nvinfer1::IDimensionExpr const&) override
        {
            return nullptr; // the operator computes no dimension
        }
        nvinfer1::IDimensionExpr const* declareSizeTensor(
            int32_t, nvinfer1::IDimensionExpr const&, nvinfer1::IDimensionExpr const&) override
        {
            return nullptr;
        }
        std::deque<Dimension> made;
    };

    State mState;
};

/// Keeps the last line it was given.
class Logger final : public nvinfer1::ILogger
{
public:
    void log(Severity severity, nvinfer1::AsciiChar const* text) noexcept override
    {
        ++lines;
        isError = severity == Severity::kERROR;
        last = text;
    }

    int lines{0};
    bool isError{false};
    std::string last;
};

class LoggerFinder final : public nvinfer1::ILoggerFinder
{
public:
    nvinfer1::ILogger* findLogger() override
    {
        if (throws)
        {
            throw std::runtime_error("no logger today");
        }
        return logger;
    }

    nvinfer1::ILogger* logger{nullptr};
    bool throws{false};
};

/// A plugin with its three capabilities at hand; deleted with this object.
struct Driven
{
    explicit Driven(nvinfer1::IPluginV3* made)
        : plugin(made)
    {
        using nvinfer1::PluginCapabilityType;
        auto const capability = [made](PluginCapabilityType type) {
            return made != nullptr ? made->getCapabilityInterface(type) : nullptr;
        };
        core = static_cast<nvinfer1::IPluginV3OneCore*>(capability(PluginCapabilityType::kCORE));
        build = static_cast<nvinfer1::IPluginV3OneBuild*>(capability(PluginCapabilityType::kBUILD));
        runtime = static_cast<nvinfer1::IPluginV3OneRuntime*>(capability(PluginCapabilityType::kRUNTIME));
    }
    Driven(Driven const&) = delete;
    Driven& operator=(Driven const&) = delete;
    ~Driven()
    {
        delete plugin;
    }

    bool complete() const
    {
        return core != nullptr && build != nullptr && runtime != nullptr;
    }

    nvinfer1::IPluginV3* plugin;
    nvinfer1::IPluginV3OneCore* core;
    nvinfer1::IPluginV3OneBuild* build;
    nvinfer1::IPluginV3OneRuntime* runtime;
};

/// Descriptions of features [B,D,H,W,C], points [B,P,3] and samples [B,P,C].
struct Call
{
    Call(nvinfer1::DataType type, int64_t B, int64_t D, int64_t H, int64_t W, int64_t C, int64_t P)
        : in{describe(type, 5, {B, D, H, W, C}), describe(nvinfer1::DataType::kFLOAT, 3, {B, P, 3})}
        , out{describe(type, 3, {B, P, C})}
    {
    }

    static nvinfer1::PluginTensorDesc describe(nvinfer1::DataType type, int32_t rank, std::initializer_list<int64_t> d)
    {
        nvinfer1::PluginTensorDesc description{};
        description.type = type;
        description.format = nvinfer1::TensorFormat::kLINEAR;
        description.dims.nbDims = rank;
        int32_t axis = 0;
        for (int64_t const size : d)
        {
            description.dims.d[axis++] = size;
        }
        return description;
    }

    nvinfer1::PluginTensorDesc in[2];
    nvinfer1::PluginTensorDesc out[1];
};

void checkBuildPhase(Report& report, Driven& driven);

void checkRunPhase(Report& report, Driven& driven, Logger& logger);

/// `enqueue` on the GPU against float64 on the CPU; says so where there is no GPU.
void checkEnqueue(Report& report, nvinfer1::IPluginV3OneRuntime& runtime);

} // namespace harness
