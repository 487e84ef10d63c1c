// What TensorRT asks of the plugin while it builds an engine: types, shapes, formats.
#include <vector>

#include "harness.h"

using namespace nvinfer1;
using harness::Call;
using harness::Dimensions;
using harness::Driven;
using harness::Report;

namespace
{

constexpr DataType kTYPES[] = {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32, DataType::kBOOL,
    DataType::kUINT8, DataType::kFP8, DataType::kBF16, DataType::kINT64, DataType::kINT4};

constexpr TensorFormat kFORMATS[] = {TensorFormat::kLINEAR, TensorFormat::kCHW2, TensorFormat::kHWC8,
    TensorFormat::kCHW4, TensorFormat::kCHW16, TensorFormat::kCHW32, TensorFormat::kDHWC8, TensorFormat::kCDHW32,
    TensorFormat::kHWC, TensorFormat::kHWC16, TensorFormat::kDHWC};

bool isSampled(DataType type)
{
    return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

void checkTypes(Report& report, Driven& driven)
{
    bool right = true;
    for (DataType const features : kTYPES)
    {
        for (DataType const points : kTYPES)
        {
            DataType const in[] = {features, points};
            DataType out[] = {DataType::kINT32};
            bool const accepted = driven.build->getOutputDataTypes(out, 1, in, 2) == 0;
            right &= accepted == (isSampled(features) && points == DataType::kFLOAT);
            right &= out[0] == (accepted ? features : DataType::kINT32);
        }
    }
    report.check(right, "samples have the features' type; every other pair is refused");
    DataType const in[] = {DataType::kFLOAT, DataType::kFLOAT, DataType::kFLOAT};
    DataType out[2];
    report.check(driven.build->getOutputDataTypes(out, 1, in, 3) != 0
            && driven.build->getOutputDataTypes(out, 2, in, 2) != 0
            && driven.build->getOutputDataTypes(nullptr, 1, in, 2) != 0
            && driven.build->getOutputDataTypes(out, 1, nullptr, 2) != 0,
        "output types of wrong counts and nulls are refused");
}

void checkShapes(Report& report, Driven& driven)
{
    Dimensions make;
    DimsExprs in[3]{};
    in[0] = {5, {make.unknown(4), make.known(8), make.known(8), make.known(8), make.known(256)}};
    in[1] = {3, {make.unknown(4), make.unknown(15), make.known(3)}};
    DimsExprs out[2]{};
    auto const infer = [&](int32_t inputs, int32_t shapes, int32_t outputs) {
        return driven.build->getOutputShapes(in, inputs, in, shapes, out, outputs, make);
    };
    report.check(infer(2, 0, 1) == 0 && out[0].nbDims == 3 && Dimensions::valueOf(out[0].d[0]) == 4
            && Dimensions::valueOf(out[0].d[1]) == 15 && Dimensions::valueOf(out[0].d[2]) == 256
            && !out[0].d[0]->isConstant() && !out[0].d[1]->isConstant() && out[0].d[2]->isConstant(),
        "samples are [B,P,C], batch and points dynamic");
    in[1].d[2] = make.unknown(3);
    report.check(infer(2, 0, 1) == 0, "three coordinates not yet known");
    in[1].d[2] = make.known(2);
    report.check(infer(2, 0, 1) != 0, "two coordinates are refused");
    in[1].d[2] = make.known(3);
    in[1].d[0] = make.known(5);
    report.check(infer(2, 0, 1) == 0, "a batch of which one side is known");
    in[0].d[0] = make.known(4);
    report.check(infer(2, 0, 1) != 0, "two batches are refused");
    in[1].d[0] = make.known(4);
    report.check(infer(2, 0, 1) == 0, "a fixed batch");
    report.check(infer(1, 0, 1) != 0 && infer(3, 0, 1) != 0 && infer(2, 1, 1) != 0 && infer(2, 0, 2) != 0,
        "shapes of wrong counts are refused");
    report.check(driven.build->getOutputShapes(nullptr, 2, nullptr, 0, out, 1, make) != 0
            && driven.build->getOutputShapes(in, 2, nullptr, 0, nullptr, 1, make) != 0,
        "shapes of nulls are refused");
    in[0].nbDims = 4;
    report.check(infer(2, 0, 1) != 0, "features of rank 4 are refused");
    in[0].nbDims = 5;
    in[1].nbDims = 2;
    report.check(infer(2, 0, 1) != 0, "points of rank 2 are refused");
}

/// The plugin's answer at `pos`; entries after it hold what TensorRT may leave there. Both fillings must agree.
bool supports(Report& report, Driven& driven, int32_t pos, std::vector<DynamicPluginTensorDesc> inOut)
{
    bool answers[2];
    for (bool const other : {false, true})
    {
        for (auto entry = static_cast<size_t>(pos) + 1; entry < inOut.size(); ++entry)
        {
            inOut[entry].desc.type = other ? DataType::kINT32 : DataType::kFLOAT;
            inOut[entry].desc.format = other ? TensorFormat::kCHW32 : TensorFormat::kLINEAR;
        }
        answers[other] = driven.build->supportsFormatCombination(pos, inOut.data(), 2, 1);
    }
    if (answers[0] != answers[1])
    {
        report.check(false, "position " + std::to_string(pos) + " looks at later entries");
    }
    return answers[0];
}

void checkFormats(Report& report, Driven& driven)
{
    int accepted = 0;
    bool right = true;
    std::vector<DynamicPluginTensorDesc> inOut(3);
    for (DataType const features : kTYPES)
    {
        for (DataType const points : kTYPES)
        {
            for (DataType const samples : kTYPES)
            {
                DataType const types[] = {features, points, samples};
                for (int32_t pos = 0; pos < 3; ++pos)
                {
                    inOut[pos].desc.type = types[pos];
                    inOut[pos].desc.format = TensorFormat::kLINEAR;
                }
                bool const whole = supports(report, driven, 0, inOut) && supports(report, driven, 1, inOut)
                    && supports(report, driven, 2, inOut);
                right &= whole == (isSampled(features) && points == DataType::kFLOAT && samples == features);
                accepted += whole;
            }
        }
    }
    report.check(right && accepted == 3, "three triples of types: float32, float16, bfloat16 around float32 points");

    bool refused = true;
    for (TensorFormat const format : kFORMATS)
    {
        for (int32_t pos = 0; pos < 3; ++pos)
        {
            for (DynamicPluginTensorDesc& entry : inOut)
            {
                entry.desc.type = DataType::kFLOAT;
                entry.desc.format = TensorFormat::kLINEAR;
            }
            inOut[pos].desc.format = format;
            refused &= supports(report, driven, pos, inOut) == (format == TensorFormat::kLINEAR);
        }
    }
    report.check(refused, "every format but linear is refused at every position");
    auto const supported = [&](int32_t pos, DynamicPluginTensorDesc const* entries, int32_t in, int32_t out) {
        return driven.build->supportsFormatCombination(pos, entries, in, out);
    };
    report.check(!supported(-1, inOut.data(), 2, 1) && !supported(3, inOut.data(), 2, 1)
            && !supported(0, inOut.data(), 3, 1) && !supported(0, inOut.data(), 2, 2) && !supported(0, nullptr, 2, 1),
        "formats of wrong positions, counts and nulls are refused");
}

void checkConfigure(Report& report, Driven& driven)
{
    DynamicPluginTensorDesc in[2]{};
    DynamicPluginTensorDesc out[1]{};
    bool right = true;
    for (DataType const type : kTYPES)
    {
        Call const call(type, -1, 8, 8, 8, 256, -1);
        in[0].desc = call.in[0];
        in[1].desc = call.in[1];
        out[0].desc = call.out[0];
        right &= (driven.build->configurePlugin(in, 2, out, 1) == 0) == isSampled(type);
    }
    report.check(right, "configured for each type, dimensions dynamic");
    report.check(driven.build->configurePlugin(nullptr, 2, out, 1) != 0
            && driven.build->configurePlugin(in, 2, nullptr, 1) != 0
            && driven.build->configurePlugin(in, 1, out, 1) != 0,
        "configuration of wrong counts and nulls is refused");
}

} // namespace

void harness::checkBuildPhase(Report& report, Driven& driven)
{
    checkTypes(report, driven);
    checkShapes(report, driven);
    checkFormats(report, driven);
    checkConfigure(report, driven);
}
