"""Example: two people, one partly behind the other, recovered from pixels alone and compared with the truth.

    python examples/04_against_the_truth.py starter -o compared

The bundle has its own detector and pose network; the picture is drawn here, so everything about it is known. Writes
picture.jpg, and compared.jpg with the picture, the recovered meshes, and the true ones in their places.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import open_bundle
from jotr_deploy.evaluation.end_to_end import open_people
from jotr_deploy.evaluation.held_out_scenes import SEED, held_out
from jotr_deploy.evaluation.matching import clipped, match
from jotr_deploy.evaluation.measured_people import Samples
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sources.images import write_image
from jotr_deploy.visual.overlay import draw_people


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the people of a drawn picture and compare with the truth.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--scene", type=int, default=137, help="which of the held-out scenes")
    parser.add_argument("-o", "--output", type=Path, default=Path("compared"))
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.bundle)
    scene = held_out(SEED, arguments.scene, bundle.manifest.model.crop_factor)
    faces, image = np.load(bundle.file("faces")), scene.image_bgr
    with open_people(bundle) as source, open_session(bundle.file("mesh")) as session:
        (detections, boxes_px), network = source.find(image), MeshNetwork(session)
        people = network(make_crops(image, detections, network.crop_side), detections)

    found, true = match(boxes_px, people.scores, clipped(scene.boxes_px, image)).T
    people, truth = people[found], scene.truth[true]
    errors = Samples.of(people, truth)
    print(f"{len(scene.boxes_px)} people in the picture, {len(detections)} found, {len(people)} of them right")
    print("person   visible   MPJPE, mm   PA-MPJPE, mm   vertices, mm")
    columns = truth.visible_fraction, errors.joints_mm.mean(1), errors.aligned_mm.mean(1), errors.vertices_mm
    for k, (visible, joints, aligned, vertices) in enumerate(zip(*columns, strict=True)):
        print(f"{k:6d}   {visible:7.0%}   {joints:9.0f}   {aligned:12.0f}   {vertices:12.0f}")

    shown = {"found": people, "true": replace(people, vertices_m=truth.vertices_m)}
    pictures = [image, *(draw_people(image, who, faces, caption=caption) for caption, who in shown.items())]
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_image(arguments.output / "picture.jpg", image)
    write_image(arguments.output / "compared.jpg", np.concatenate(pictures, 1))
    print(f"look at {arguments.output / 'compared.jpg'}")


if __name__ == "__main__":
    main()
