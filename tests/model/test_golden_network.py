"""The network against vectors recorded from the published implementation: final outputs and every tap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_case import case, network, standin

from jotr_deploy.model.fusion import inverse_sigmoid
from jotr_deploy.model.jotr import JOTR, MeshOutput, camera_translation, render_translation

CASES = ("case_000", "case_001", "case_002", "case_003")

# Largest accepted difference by output (tests/golden/weights_formula.md section 7).
TOLERANCE = {
    "joint_img": 5e-5,
    "smpl_shape": 5e-5,
    "cam_param": 5e-5,
    "smpl_pose": 1e-4,
    "smpl_mesh_cam": 1e-4,
    "joint_cam": 1e-4,
    "mesh_cam_render": 1e-4,
    "cam_trans": 1e-4,
    "joint_proj": 2e-3,
}
TAP_TOLERANCE = 1e-4  # of the tap's largest value


class Trace:
    """Records what flows through a network, by module and by the decoder's own methods."""

    def __init__(self, model: JOTR, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out: dict[str, Any] = {}
        self.samples: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.grids: list[torch.Tensor] = []
        backbone, lifting, fusion, self.vposer = model.backbone, model.lifting, model.fusion, model.vposer
        watched = {
            "stem": backbone.maxpool,
            "pose2feat": backbone.heatmap_fusion,
            **{f"layer{i}": backbone.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)},
            "lift_conv": lifting.to_3d,
            "voxel_in": lifting.mix,
            "voxel_refined": lifting.encoder,
            "tokens2d": fusion.down,
            "memory": fusion.encoder,
            "decoded": fusion.decoder,
            "heads": model.heads,
        }
        self.handles = [module.register_forward_hook(self._keep(name)) for name, module in watched.items()]
        self.handles.append(backbone.register_forward_pre_hook(lambda _, args: self.out.update(heatmap=args[1])))
        self.handles.append(lifting.mix.register_forward_pre_hook(lambda _, args: self.out.update(mixed=args[0])))
        sample = fusion.decoder.sample

        def spy(volume: torch.Tensor, joints: torch.Tensor, exponent: torch.Tensor) -> Any:
            self.samples.append(sample(volume, joints, exponent))
            depth = joints[..., 2:] ** exponent
            self.grids.append(2 * torch.cat([joints[..., :2], depth], -1) - 1)
            return self.samples[-1]

        monkeypatch.setattr(fusion.decoder, "sample", spy)

    def _keep(self, name: str) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            self.out[name] = output

        return hook

    def taps(self, batch: int) -> dict[str, torch.Tensor]:
        """Full tensors under the names and layouts of the recording."""
        out = self.out
        decoded, heads = out["decoded"], out["heads"]
        tokens = decoded.tokens.transpose(1, 2)  # (L, 18, B, C)
        hands = torch.zeros(batch, 6)
        return {
            **{k: out[k] for k in ("heatmap", "stem", "pose2feat", "layer1", "layer2", "layer3", "layer4")},
            "lift_conv": out["lift_conv"],
            "lift_voxels": out["mixed"][:, :256],
            "anchor": out["mixed"][:1, 256:],
            "voxel_in": out["voxel_in"],
            "voxel_refined": out["voxel_refined"].transpose(0, 1),
            "tokens2d": out["tokens2d"],
            "memory": out["memory"].transpose(0, 1),
            "dec_out": tokens,
            "hs": decoded.tokens[:, :, :3],
            "joint_logits": inverse_sigmoid(decoded.joints),
            "sample_grid": torch.stack(self.grids),
            "sample_feat": torch.stack([s for s, _ in self.samples]).transpose(1, 2),
            "sample_pos": torch.stack([p for _, p in self.samples]).transpose(1, 2),
            "root6d": heads.root_6d,
            "latent32": heads.latent,
            "vposer69": torch.cat([self.vposer(heads.latent).flatten(1), hands], 1),
        }


# How the recording thins each tap.
SLICES: dict[str, Any] = {
    "heatmap": np.s_[:, :, ::8, ::8],
    "stem": np.s_[:, ::8, ::8, ::8],
    "pose2feat": np.s_[:, ::8, ::8, ::8],
    "layer1": np.s_[:, ::32, ::8, ::8],
    "layer2": np.s_[:, ::64, ::4, ::4],
    "layer3": np.s_[:, ::128, ::2, ::2],
    "layer4": np.s_[:, ::128],
    "lift_conv": np.s_[:, ::128],
    "lift_voxels": np.s_[:, ::32, ::2, ::2, ::2],
    "voxel_in": np.s_[:, ::32, ::2, ::2, ::2],
    "voxel_refined": np.s_[::8, :, ::16],
    "tokens2d": np.s_[:, ::16],
    "memory": np.s_[::4, :, ::8],
    "dec_out": np.s_[:, :, :, ::4],
    "sample_feat": np.s_[:, :, :, ::4],
    "sample_pos": np.s_[:, :, :, ::4],
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_published_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, recorded, meta = case(name)
    model = network(meta["seed"])
    np.testing.assert_array_equal(inputs["img"].double().sum((1, 2, 3)), recorded["in/img_sum"])
    trace = Trace(model, monkeypatch)
    try:
        with torch.inference_mode():
            out = model(inputs["img"], inputs["joints"][..., :2], inputs["joints_mask"][..., 0])
    finally:
        for handle in trace.handles:
            handle.remove()
    for key, value in published_outputs(out, inputs["bbox"], meta["render"]).items():
        expected = recorded[f"out/{key}"]
        np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE[key.removesuffix("_512")], err_msg=key)
    for key, full in trace.taps(meta["B"]).items():
        largest = recorded[f"tapstat/{key}"][2]
        stats = np.array([full.mean(), full.std(unbiased=False), full.abs().max()])
        np.testing.assert_allclose(stats, recorded[f"tapstat/{key}"], atol=TAP_TOLERANCE * largest, err_msg=key)
        thinned = full[SLICES[key]] if key in SLICES else full
        np.testing.assert_allclose(thinned, recorded[f"tap/{key}"], rtol=0, atol=TAP_TOLERANCE * largest, err_msg=key)


def published_outputs(out: MeshOutput, boxes: torch.Tensor, render: bool) -> dict[str, np.ndarray]:
    """Our outputs under the published names, the render camera included."""
    camera = camera_translation(out.cam)
    drawn = render_translation(out.cam, boxes) if render else camera
    mesh = out.vertices[:, standin.MESH_IDS]
    shift = out.translation - camera + drawn
    points = out.joints3d + shift[:, None]
    projected = (points[..., :2] / (points[..., 2:] + 1e-4) * 5000 + 128) / 4
    named = {
        "joint_img": out.joints_img,
        "smpl_pose": out.pose.flatten(1),
        "smpl_shape": out.betas,
        "cam_param": out.cam,
        "joint_proj": projected if render else out.joints_proj,
        "smpl_mesh_cam_512": mesh,
        "mesh_cam_render_512": mesh + shift[:, None],
        "cam_trans": drawn,
        "joint_cam": out.joints3d,
    }
    return {key: value.numpy() for key, value in named.items()}


def test_batch_of_three_is_right_where_the_published_code_is_not() -> None:
    inputs, _, meta = case("case_002")
    model = network(meta["seed"])
    feeds = [inputs["img"], inputs["joints"][..., :2], inputs["joints_mask"][..., 0]]
    with torch.inference_mode():
        three = model(*(x[:3] for x in feeds))
        alone = model(*(x[2:3] for x in feeds))
    torch.testing.assert_close(three.pose[2:], alone.pose, rtol=0, atol=1e-4)


def test_repeats_are_equal_to_the_bit() -> None:
    inputs, _, meta = case("case_000")
    model = network(meta["seed"])
    feeds = (inputs["img"], inputs["joints"][..., :2], inputs["joints_mask"][..., 0])
    with torch.inference_mode():
        first, second = model(*feeds), model(*feeds)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
