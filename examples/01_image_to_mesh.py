"""Example: meshes from a picture and its 2-D joints.

    jotr-deploy export --stand-in -o bundle          # or from a checkpoint; nothing is downloaded
    python examples/01_image_to_mesh.py bundle -o people.obj

The picture and its joints come with the package: two drawn people, one partly behind the other.
"""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

import numpy as np

from jotr_deploy.bundle import open_bundle
from jotr_deploy.geometry.scene_frame import scene_error_px, scene_translation_m
from jotr_deploy.runtime.finding.people_source import open_people_source
from jotr_deploy.runtime.mesh import MeshNetwork
from jotr_deploy.runtime.pipeline import Pipeline
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.visual.result_files import write_obj


def main() -> None:
    parser = argparse.ArgumentParser(description="Recover the people of a picture and write them as OBJ.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("people.obj"))
    arguments = parser.parse_args()

    bundle = open_bundle(arguments.bundle)
    faces = np.load(bundle.file("faces"))
    with resources.as_file(resources.files("jotr_deploy.visual")) as folder:
        source = open_source(folder / "scene.jpg")
        joints = open_people_source(
            source, keypoints=folder / "scene_keypoints.json", crop_factor=bundle.manifest.model.crop_factor
        )
        with source, open_session(bundle.file("mesh")) as session:
            pipeline = Pipeline(MeshNetwork(session), joints)
            _, people = next(pipeline.stream(source))

    # Every person has an exact camera of their own; the common scene is derived and slightly off (docs/cameras.md).
    places_m = scene_translation_m(people, source.size_px)
    error_px = scene_error_px(people, source.size_px)
    print("person   crop box, px              joints used   focal, px   distance, m   off in the scene, px")
    for k in range(len(people)):
        box = " ".join(f"{value:6.1f}" for value in people.boxes_px[k])
        distance_m = people.translation_m[k, 2]
        used, focal = people.joints_used[k], people.focal_px[k]
        print(f"{k:6d}   {box}   {used:11d}   {focal:9.1f}   {distance_m:11.2f}   {error_px[k]:20.2f}")
    write_obj(arguments.output, people.vertices_m + places_m[:, None], faces)
    print(f"{arguments.output}: {len(people)} meshes; {', '.join(bundle.manifest.labels) or 'no labels'}")


if __name__ == "__main__":
    main()
