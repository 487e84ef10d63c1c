// What TensorRT asks of the plugin while an engine runs, as far as no GPU is needed.
#include "harness.h"

using namespace nvinfer1;
using harness::Call;
using harness::Driven;
using harness::Report;

namespace
{

void checkShapeChange(Report& report, Driven& driven)
{
    auto const accepts = [&](Call const& call) { return driven.runtime->onShapeChange(call.in, 2, call.out, 1) == 0; };
    Call const good(DataType::kHALF, 4, 8, 8, 8, 256, 15);
    report.check(accepts(good), "a change of shape");
    report.check(accepts(Call(DataType::kFLOAT, 0, 8, 8, 8, 256, 0)), "a change to nothing");

    struct Wrong
    {
        char const* name;
        int64_t (*spoil)(Call&);
    };
    Wrong const table[] = {
        {"points of another batch", [](Call& c) { return c.in[1].dims.d[0] = 3; }},
        {"two coordinates", [](Call& c) { return c.in[1].dims.d[2] = 2; }},
        {"samples of another batch", [](Call& c) { return c.out[0].dims.d[0] = 3; }},
        {"samples of other points", [](Call& c) { return c.out[0].dims.d[1] = 14; }},
        {"samples of other channels", [](Call& c) { return c.out[0].dims.d[2] = 255; }},
        {"a negative dimension", [](Call& c) { return c.in[0].dims.d[1] = -1; }},
        {"a dimension beyond int", [](Call& c) { return c.in[0].dims.d[1] = int64_t{1} << 31; }},
        {"features of rank 4", [](Call& c) { return int64_t{c.in[0].dims.nbDims = 4}; }},
        {"points of rank 2", [](Call& c) { return int64_t{c.in[1].dims.nbDims = 2}; }},
        {"samples of rank 4", [](Call& c) { return int64_t{c.out[0].dims.nbDims = 4}; }},
    };
    for (Wrong const& row : table)
    {
        Call call = good;
        row.spoil(call);
        report.check(!accepts(call), std::string("refused: ") + row.name);
    }
    report.check(driven.runtime->onShapeChange(nullptr, 2, good.out, 1) != 0
            && driven.runtime->onShapeChange(good.in, 2, nullptr, 1) != 0
            && driven.runtime->onShapeChange(good.in, 1, good.out, 1) != 0,
        "a change of shape of wrong counts and nulls is refused");
}

void checkRefusedEnqueue(Report& report, Driven& driven, harness::Logger& logger)
{
    Call call(DataType::kFLOAT, 2, 8, 8, 8, 256, 15);
    void const* inputs[2]{};
    void* outputs[1]{};
    IPluginV3OneRuntime& runtime = *driven.runtime;
    report.check(runtime.enqueue(nullptr, call.out, inputs, outputs, nullptr, nullptr) != 0
            && runtime.enqueue(call.in, nullptr, inputs, outputs, nullptr, nullptr) != 0
            && runtime.enqueue(call.in, call.out, nullptr, outputs, nullptr, nullptr) != 0
            && runtime.enqueue(call.in, call.out, inputs, nullptr, nullptr, nullptr) != 0,
        "enqueue of nulls is refused");
    call.in[1].dims.d[2] = 2;
    logger.lines = 0;
    report.check(runtime.enqueue(call.in, call.out, inputs, outputs, nullptr, nullptr) != 0 && logger.lines == 1
            && logger.last == "jotr::TrilinearSample3D: points must be [B,P,3] with the batch of the features",
        "enqueue of wrong shapes is refused with a reason");
    Call const integers(DataType::kINT32, 2, 8, 8, 8, 256, 15);
    report.check(runtime.enqueue(integers.in, integers.out, inputs, outputs, nullptr, nullptr) != 0,
        "enqueue of integers is refused");
    Call const nothing(DataType::kFLOAT, 2, 8, 8, 8, 256, 0);
    report.check(runtime.enqueue(nothing.in, nothing.out, inputs, outputs, nullptr, nullptr) == 0,
        "enqueue of no points queues nothing");
}

} // namespace

void harness::checkRunPhase(Report& report, Driven& driven, Logger& logger)
{
    checkShapeChange(report, driven);
    checkRefusedEnqueue(report, driven, logger);
}
