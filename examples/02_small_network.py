"""Example: a small JOTR of your own, from configuration to checkpoint, bundle and run.

    python examples/02_small_network.py small-bundle

Needs the extras `export` and `cpu`. The weights are random: shapes and files are real, poses are meaningless.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from jotr_deploy.body.smpl import stand_in
from jotr_deploy.bundle import open_bundle
from jotr_deploy.config import ModelConfig
from jotr_deploy.engines.verify import random_crops
from jotr_deploy.export.assemble import UNTRAINED_LABEL, load_network
from jotr_deploy.export.to_bundle import export_bundle
from jotr_deploy.model.checkpoint import save_checkpoint
from jotr_deploy.model.initialise import initialise
from jotr_deploy.model.jotr import JOTR
from jotr_deploy.runtime.sessions import open_session

CONFIG = ModelConfig(
    backbone_depth=10, backbone_width=16, d_model=64, heads=4, ffn_fusion=128, ffn_voxel=128,
    encoder_layers=1, decoder_layers=2, crop_side=128, voxel_grid=4,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Make, save, load, export and run a small network.")
    parser.add_argument("bundle", type=Path, help="directory to make")
    directory = parser.parse_args().bundle

    model = initialise(JOTR(CONFIG, stand_in()), seed=0)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    checkpoint = directory.with_name(f"{directory.name}.pt")
    save_checkpoint(checkpoint, model, labels=(UNTRAINED_LABEL,))

    # From here on it is an ordinary checkpoint. From a shell: jotr-deploy export CHECKPOINT -o BUNDLE
    exported = export_bundle(load_network(checkpoint), directory)
    farthest_mm = max(row.max for row in exported.differences if row.output == "vertices")
    print(f"{directory}: {exported.size_bytes:,} bytes; vertices at most {farthest_mm:.1g} mm from PyTorch")

    bundle = open_bundle(directory)
    with open_session(bundle.file("mesh")) as session:
        results = session(random_crops(bundle.manifest.model, batch=2))
    for name, array in results.items():
        print(f"{name:12s} {array.dtype} {array.shape}")


if __name__ == "__main__":
    main()
