"""Third-party ResNet weights to initialise the backbone, read without running code from the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from jotr_deploy.body.tensors import read_tensors
from jotr_deploy.errors import CheckpointError

_REMEDY = "give a state dict under torchvision's names (conv1.weight ... layer4.2.bn3.bias), tensors only"
_OWN = "heatmap_fusion."


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill a backbone in place, except for the layer that takes the heat maps.

    Args:
        backbone: to fill; a ResNet under torchvision's names.
        path: a state dict, or one under `network`; prefixes `module.` and `backbone.` are dropped, entries
            other than those of the ResNet are ignored.

    Raises:
        CheckpointError: no such file, not readable without running code, weights missing or of another ResNet.
    """
    content = read_tensors(path, CheckpointError, "a state dict", _REMEDY)
    state = content.get("network", content) if isinstance(content, Mapping) else {}
    named = state.items() if isinstance(state, Mapping) else ()
    found = {str(name).removeprefix("module.").removeprefix("backbone."): value for name, value in named}
    own = backbone.state_dict()
    wanted = [name for name in own if not name.startswith(_OWN) and not name.endswith("num_batches_tracked")]
    wrong = [name for name in wanted if not isinstance(found.get(name), Tensor) or found[name].shape != own[name].shape]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} of {len(wanted)} weights of this ResNet are missing or misshapen, first {wrong[0]}",
            _REMEDY,
        )
    backbone.load_state_dict({name: found[name] for name in wanted}, strict=False)
