// Opens a plugin library the way IPluginRegistry::loadLibrary does.
#pragma once

#include <cstdio>
#include <cstring>
#include <dlfcn.h>

#include <NvInferRuntime.h>

namespace harness
{

struct Library
{
    nvinfer1::IPluginCreatorInterface* const* (*getCreators)(int32_t&);
    void (*setLoggerFinder)(nvinfer1::ILoggerFinder*);
};

inline bool named(char const* text, char const* expected)
{
    return text != nullptr && std::strcmp(text, expected) == 0;
}

/// Opens the library that the command line names; says why it cannot.
inline bool open(int count, char** arguments, Library& library)
{
    if (count != 2)
    {
        std::printf("usage: %s LIBRARY\n", arguments[0]);
        return false;
    }
    void* const handle = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr)
    {
        std::printf("Bail out! %s\n", dlerror());
        return false;
    }
    library.getCreators = reinterpret_cast<decltype(library.getCreators)>(dlsym(handle, "getCreators"));
    library.setLoggerFinder = reinterpret_cast<decltype(library.setLoggerFinder)>(dlsym(handle, "setLoggerFinder"));
    if (library.getCreators == nullptr || library.setLoggerFinder == nullptr)
    {
        std::printf("Bail out! getCreators and setLoggerFinder must be exported\n");
        return false;
    }
    return true;
}

/// The library's creator, or nullptr where it has another number, or another sort, of creators.
inline nvinfer1::IPluginCreatorV3One* onlyCreator(Library const& library)
{
    int32_t count = 0;
    nvinfer1::IPluginCreatorInterface* const* const creators = library.getCreators(count);
    bool const one = creators != nullptr && count == 1 && creators[0] != nullptr
        && named(creators[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE");
    return one ? static_cast<nvinfer1::IPluginCreatorV3One*>(creators[0]) : nullptr;
}

} // namespace harness
