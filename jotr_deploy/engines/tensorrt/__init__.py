"""TensorRT engines: the rules of its parser, the recipe, Q/DQ pairs, the plugin, and the build."""
