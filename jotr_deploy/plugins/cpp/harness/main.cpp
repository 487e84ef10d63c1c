// Drives the plugin library as TensorRT would, without TensorRT: harness LIBRARY
#include <cstring>
#include <memory>

#include "harness.h"
#include "library.h"

using namespace nvinfer1;
using harness::Call;
using harness::Driven;
using harness::Library;
using harness::named;
using harness::Report;

namespace
{

constexpr TensorRTPhase kPHASES[] = {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME};

void checkCreation(Report& report, IPluginCreatorV3One& creator, harness::Logger& logger)
{
    report.check(named(creator.getPluginName(), "TrilinearSample3D") && named(creator.getPluginVersion(), "1")
            && named(creator.getPluginNamespace(), "jotr"),
        "the creator is jotr::TrilinearSample3D version 1");
    PluginFieldCollection const* const names = creator.getFieldNames();
    report.check(names != nullptr && names->nbFields == 0, "there are no attributes");

    PluginFieldCollection const none{0, nullptr};
    for (TensorRTPhase const phase : kPHASES)
    {
        std::string const when = phase == TensorRTPhase::kBUILD ? "to build" : "to run";
        report.check(Driven(creator.createPlugin("sample", &none, phase)).complete(), "made " + when);
        report.check(Driven(creator.createPlugin(nullptr, nullptr, phase)).complete(), "made " + when + " from nulls");
        int32_t const value = 1;
        PluginField const wrong[] = {{"align_corners", &value, PluginFieldType::kINT32, 1}};
        PluginField const nameless[] = {{nullptr, nullptr, PluginFieldType::kUNKNOWN, 0}};
        struct Refused
        {
            char const* name;
            PluginFieldCollection fields;
        };
        Refused const table[] = {{"a field", {1, wrong}}, {"a nameless field", {1, nameless}},
            {"a null field", {1, nullptr}}, {"-1 fields", {-1, wrong}}, {"-1 null fields", {-1, nullptr}}};
        for (Refused const& row : table)
        {
            logger.lines = 0;
            report.check(creator.createPlugin("sample", &row.fields, phase) == nullptr && logger.lines == 1,
                std::string("refused ") + when + ": " + row.name);
        }
        report.check(creator.createPlugin("sample", &table[0].fields, phase) == nullptr
                && logger.last == "jotr::TrilinearSample3D: has no attributes, but was given 'align_corners'"
                && logger.isError,
            "the refusal names the attribute " + when);
    }
}

void checkLoggers(Report& report, Library const& library, IPluginCreatorV3One& creator, harness::LoggerFinder& finder)
{
    PluginFieldCollection const wrong{1, nullptr};
    ILogger* const logger = finder.logger;
    auto const refuses = [&] { return creator.createPlugin("sample", &wrong, TensorRTPhase::kBUILD) == nullptr; };
    finder.throws = true;
    report.check(refuses(), "an exception of the logger finder stays inside");
    finder.throws = false;
    finder.logger = nullptr;
    report.check(refuses(), "a finder without a logger");
    finder.logger = logger;
    library.setLoggerFinder(nullptr);
    report.check(refuses(), "no logger finder");
    library.setLoggerFinder(&finder);
}

void checkCapabilities(Report& report, Driven& driven)
{
    report.check(named(driven.core->getPluginName(), "TrilinearSample3D") && named(driven.core->getPluginVersion(), "1")
            && named(driven.core->getPluginNamespace(), "jotr"),
        "the plugin bears its creator's name");
    report.check(driven.plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(99)) == nullptr,
        "an unknown capability is null");
    report.check(driven.build->getNbOutputs() == 1, "one output");
    report.check(driven.build->getNbTactics() == 0 && driven.build->getWorkspaceSize(nullptr, 0, nullptr, 0) == 0,
        "no tactics, no workspace");
    char const* const id = driven.build->getTimingCacheID();
    report.check(id != nullptr && std::strlen(id) == 64, "the timing cache knows the kernel by its hash");
    std::string const major = std::to_string(NV_TENSORRT_MAJOR);
    report.check(id != nullptr
            && named(driven.build->getMetadataString(),
                ("jotr::TrilinearSample3D " + std::string(id) + " TensorRT " + major).c_str()),
        "made for TensorRT " + major);
}

/// Serialise, deserialise, clone, attach; each outlives what it came from.
void checkLives(Report& report, IPluginCreatorV3One& creator)
{
    auto first = std::make_unique<Driven>(creator.createPlugin("sample", nullptr, TensorRTPhase::kBUILD));
    PluginFieldCollection const* const fields = first->runtime->getFieldsToSerialize();
    report.check(fields != nullptr && fields->nbFields == 0, "nothing to serialise");
    auto second = std::make_unique<Driven>(creator.createPlugin("sample", fields, TensorRTPhase::kRUNTIME));
    first.reset();
    report.check(second->complete(), "made again from its own fields");
    auto third = std::make_unique<Driven>(second->plugin->clone());
    report.check(third->complete() && third->plugin != second->plugin, "a clone is another whole plugin");
    second.reset();
    Driven fourth(third->runtime->attachToContext(nullptr));
    report.check(fourth.complete() && fourth.plugin != third->plugin, "attached to a context: another whole plugin");
    third.reset();
    Call const call(DataType::kBF16, 1, 8, 8, 8, 256, 15);
    report.check(fourth.runtime->onShapeChange(call.in, 2, call.out, 1) == 0, "which outlives its origins");
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
    harness::Logger logger;
    harness::LoggerFinder finder;
    finder.logger = &logger;
    library.setLoggerFinder(&finder);
    IPluginCreatorV3One* const made = harness::onlyCreator(library);
    report.check(made != nullptr, "the library has one creator of V3 plugins");
    if (made == nullptr)
    {
        return report.finish();
    }
    IPluginCreatorV3One& creator = *made;
    checkCreation(report, creator, logger);
    checkLoggers(report, library, creator, finder);
    Driven driven(creator.createPlugin("sample", nullptr, TensorRTPhase::kBUILD));
    if (driven.complete())
    {
        checkCapabilities(report, driven);
        checkLives(report, creator);
        harness::checkBuildPhase(report, driven);
        harness::checkRunPhase(report, driven, logger);
        harness::checkEnqueue(report, *driven.runtime);
    }
    return report.finish();
}
