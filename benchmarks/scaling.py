"""Time and memory against the people in a frame, the size of a picture, the length of a film, and the batch.

python benchmarks/scaling.py starter --plot docs/scaling.svg
python benchmarks/scaling.py starter --only length --seconds 600

From file to file: joints are given, people are recovered, tracked, smoothed and drawn, results are written; the clock
starts after the first frame, so that opening the networks is left out. The batch is that of one call of the mesh
network. Every row is compared with the first of its table: `linear` is its time over what proportional growth would
give, so 1 is linear and less is better. Processor time includes the encoder's process, and says more than the clock
where other programs run. Memory is the highest of this process while a row ran for the first time, smallest row first
(on Linux; elsewhere the highest so far).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from jotr_deploy.bundle import Bundle, open_bundle
from jotr_deploy.profiling.charts import Axis, Series, line_chart
from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import Scene, open_scene
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.joint_files.npz_file import write_keypoints_npz
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.runtime.sources.images import read_image, write_image
from jotr_deploy.runtime.sources.opening import VideoWriter
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import NO_FRAME, Spans

PEOPLE = (1, 2, 4, 8, 16, 32, 64)
SIZES_PX = {"VGA": (640, 480), "HD": (1280, 720), "Full HD": (1920, 1080), "4K": (3840, 2160), "8K": (7680, 4320)}
LENGTHS = (100, 300, 1000, 3000, 10000)
BATCHES = (1, 2, 4, 8, 16, 32)
CROWD_PX, SMALL_PX = (1920, 1080), (320, 240)
CROWD_FRAMES, STILLS = 6, 4
GRID = 8  # people stand on a grid of 8 x 8, so that all are of one size
FPS = 25.0
MIB = 2**20
LINEAR = 1.15
"""Largest ratio to proportional growth that counts as linear; repeated runs differ by less."""
STYLE = (
    "svg{background:#fff;font-family:system-ui,sans-serif}text{fill:#444;font-size:13px}.title{font-weight:600}"
    ".grid{stroke:#ddd}polyline{fill:none;stroke:currentColor;stroke-width:2.2}circle,polygon{fill:currentColor}"
    ".c0{color:#0072b2}.c1{color:#d55e00}.c2{color:#777}"
)


@dataclass(frozen=True)
class Work:
    """Time of a piece of work; stages in processor time of the thread that does them."""

    clock_s: float
    processor_s: float
    stages_s: Mapping[str, float]


@dataclass
class Row:
    """One size of what grows, with the function that does the work."""

    name: str
    units: float  # its size: people, pixels, frames
    work: Callable[[], Work]
    done: list[Work] = field(default_factory=list)
    peak_mib: float = 0.0

    def measure(self) -> None:
        """Do the work once."""
        if not self.done:
            forget_peak()
        self.done.append(self.work())
        if len(self.done) == 1:
            self.peak_mib = peak_mib()

    @property
    def clock_s(self) -> float:
        """Median."""
        return median(work.clock_s for work in self.done)

    @property
    def processor_s(self) -> float:
        """Median."""
        return median(work.processor_s for work in self.done)

    def stage_s(self, stage: str) -> float:
        """Median seconds of a stage."""
        return median(work.stages_s.get(stage, 0.0) for work in self.done)


class StageTimes(Spans):
    """Processor time of every stage, in the thread that does it."""

    def __init__(self) -> None:
        super().__init__()
        self.stages_s: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str, frame: int = NO_FRAME) -> Iterator[None]:
        start_s = time.thread_time()
        with super().__call__(stage, frame):
            yield
        if frame > 0:  # as the clock does
            self.stages_s[stage] = self.stages_s.get(stage, 0.0) + time.thread_time() - start_s


def used_s() -> float:
    """Processor time of this process and of the programs that it has called."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)  # os.times() counts hundredths of a second


def forget_peak() -> None:
    """Let the highest memory be measured anew, where the system can."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Highest resident memory of this process since `forget_peak`."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--only", choices=("people", "size", "length", "batch"), action="append")
    parser.add_argument("--rounds", type=int, default=3, help="of every table but the length, which is run once")
    parser.add_argument("--seconds", type=float, default=900, help="for all films together; longer ones are left out")
    parser.add_argument("--plot", type=Path, help="SVG with a chart of every table")
    arguments = parser.parse_args()
    load, bundle = load_average(), open_bundle(arguments.bundle)
    charts = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scene = stack.enter_context(open_scene(None, None, bundle.manifest.model))
        session = stack.enter_context(open_session(bundle.file("mesh"), device="cpu"))
        tables: dict[str, tuple[str, Callable[[], Iterator[Row]], int]] = {
            "people": ("people in a frame", partial(crowds, bundle, scene, folder), arguments.rounds),
            "size": ("pixels of a picture", partial(pictures, bundle, scene, folder), arguments.rounds),
            "length": ("frames of a film", partial(films, bundle, scene, folder, arguments.seconds), 1),
            "batch": ("people in a call", partial(batches, session, scene), 5 * arguments.rounds),
        }
        for name in arguments.only or tables:
            title, made, rounds = tables[name]
            rows = measured(made(), rounds)
            print_table(title, rows)
            charts.append(chart(title, rows))
    print(environment(None, False, load))
    print(f"load average at the end: {load_average()}")
    if arguments.plot:
        arguments.plot.write_text(stacked(charts))


def measured(rows: Iterator[Row], rounds: int) -> list[Row]:
    """All rows measured in turn, so that a slow minute affects all of them; the first is called once before."""
    done: list[Row] = []
    for row in rows:
        if not done:
            row.work()
        row.measure()
        done.append(row)
    for _ in range(rounds - 1):
        for row in done:
            row.measure()
    return done


def crowds(bundle: Bundle, scene: Scene, folder: Path) -> Iterator[Row]:
    """Films of up to 64 people of one size."""
    cell_px = (CROWD_PX[0] // GRID, CROWD_PX[1] // GRID)
    tile, scale = fitted(read_image(scene.path), cell_px)
    film = folder / "crowd.mp4"
    write_film(film, np.tile(tile, (GRID, GRID, 1)), CROWD_FRAMES)
    places_px = [(x * cell_px[0], y * cell_px[1]) for y in range(GRID) for x in range(GRID)]
    one = resized(scene.people[np.array([0])], scale)
    for count in PEOPLE:
        joints = folder / f"crowd_{count}.npz"
        everyone = together([moved(one, place_px) for place_px in places_px[:count]])
        write_keypoints_npz(joints, [(frame, everyone) for frame in range(CROWD_FRAMES)])
        yield Row(str(count), count, partial(whole_run, bundle, film, joints, folder, CROWD_FRAMES))


def pictures(bundle: Bundle, scene: Scene, folder: Path) -> Iterator[Row]:
    """Stills of two people who fill them, whatever their size."""
    image = read_image(scene.path)
    for name, size_px in SIZES_PX.items():
        stills, joints = folder / f"{size_px[0]}", folder / f"{size_px[0]}.npz"
        stills.mkdir()
        picture, scale = fitted(image, size_px)
        for number in range(STILLS):
            write_image(stills / f"{number}.jpg", picture)
        write_keypoints_npz(joints, [(number, resized(scene.people, scale)) for number in range(STILLS)])
        yield Row(name, size_px[0] * size_px[1], partial(whole_run, bundle, stills, joints, folder, STILLS))


def films(bundle: Bundle, scene: Scene, folder: Path, seconds: float) -> Iterator[Row]:
    """Small films of one person, as long as there is time for them."""
    image, scale = fitted(read_image(scene.path), SMALL_PX)
    one = resized(scene.people[np.array([0])], scale)
    end_s, rows = time.perf_counter() + seconds, list[Row]()
    for frames in LENGTHS:
        left_s = end_s - time.perf_counter()
        needed_s = rows[-1].clock_s / rows[-1].units * frames if rows else 0.0
        if needed_s > left_s:
            print(f"{frames} frames left out: about {needed_s:.0f} s, with {max(left_s, 0.0):.0f} s left of --seconds")
            return
        film, joints = folder / f"{frames}.mp4", folder / f"{frames}.npz"
        write_film(film, image, frames)
        write_keypoints_npz(joints, [(frame, one) for frame in range(frames)])
        rows.append(Row(str(frames), frames, partial(whole_run, bundle, film, joints, folder)))
        yield rows[-1]


def batches(session: Session, scene: Scene) -> Iterator[Row]:
    """Calls of the mesh network with more and more people."""

    def call(count: int) -> Work:
        feeds = scene.batch(count)
        processor_s, clock_s = used_s(), time.perf_counter()
        session(feeds)
        return Work(time.perf_counter() - clock_s, used_s() - processor_s, {})

    for count in BATCHES:
        call(count)  # ONNX Runtime plans its memory for a new size
        yield Row(str(count), count, partial(call, count))


def whole_run(bundle: Bundle, source: Path, joints: Path, folder: Path, frames: int = 1) -> Work:
    """`run` from file to file after its first frame, by frame if their number is given."""
    film, stages, started = source.suffix == ".mp4", StageTimes(), list[tuple[float, float]]()
    options = RunOptions(keypoints=joints, smooth="one-euro" if film else None, device="cpu")

    def progress(done: int, _: int | None) -> None:
        if done == 1:
            started.append((time.perf_counter(), used_s()))

    run(bundle, str(source), folder / "results", options, progress, stages)
    (clock_s, processor_s), share = started[0], 1 / max(frames - 1, 1)
    return Work(
        share * (time.perf_counter() - clock_s),
        share * (used_s() - processor_s),
        {stage: share * seconds for stage, seconds in stages.stages_s.items()},
    )


def write_film(path: Path, image: Array, frames: int) -> None:
    """Film of a picture that moves a little."""
    height, width = image.shape[:2]
    with VideoWriter(path, FPS) as writer:
        for frame in range(frames):
            shift = np.array([[1, 0, 3 * np.sin(frame / 9)], [0, 1, 0]])
            writer.write(cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REFLECT))


def fitted(image: Array, size_px: tuple[int, int]) -> tuple[Array, float]:
    """Picture of a size that holds the whole image, at the top left, and the scale of that image."""
    height, width = image.shape[:2]
    scale = min(size_px[0] / width, size_px[1] / height)
    small = cv2.resize(image, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_AREA)
    right, below = size_px[0] - small.shape[1], size_px[1] - small.shape[0]
    return cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE), scale


def resized(people: Detections, scale: float) -> Detections:
    """People of a picture that is resized."""
    joints_px = people.keypoints_px.copy()
    joints_px[..., :2] *= scale
    return replace(people, keypoints_px=joints_px, boxes_px=people.boxes_px * scale)


def moved(people: Detections, by_px: tuple[int, int]) -> Detections:
    """People at another place of the picture."""
    joints_px = people.keypoints_px.copy()
    joints_px[..., :2] += by_px * (joints_px[..., 2:] > 0)
    return replace(people, keypoints_px=joints_px, boxes_px=people.boxes_px + np.tile(by_px, 2))


def together(people: Sequence[Detections]) -> Detections:
    """All of them in one picture."""
    names = ("boxes_px", "keypoints_px", "scores", "track_ids")
    return Detections(**{name: np.concatenate([getattr(each, name) for each in people]) for name in names})


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print every row against the first, and the stages that grew faster than in proportion."""
    first, last = rows[0], rows[-1]
    print(f"{title:>22}    units       ms   ratio  linear   cpu ms   ratio  linear   peak MiB   ratio")
    for row in rows:
        units = row.units / first.units
        times = "".join(
            f"  {1000 * each:7.0f}  {each / base:6.2f}  {each / base / units:6.2f}"
            for each, base in ((row.clock_s, first.clock_s), (row.processor_s, first.processor_s))
        )
        print(f"{row.name:>22}  {units:6.1f}x{times}  {row.peak_mib:9.0f}  {row.peak_mib / first.peak_mib:6.2f}")
    for stage in last.done[0].stages_s:
        share = last.stage_s(stage) / last.processor_s
        growth = last.stage_s(stage) / max(first.stage_s(stage), 1e-9) / (last.units / first.units)
        if share > 0.02:
            worse = "   worse than linear" if growth > LINEAR else ""
            print(f"{stage:>22}  {share:6.0%} of the last row, {growth:.2f} of linear growth{worse}")
    print(flush=True)


def chart(title: str, rows: Sequence[Row]) -> str:
    """Time and memory over the size, all relative to the first row."""
    first = rows[0]
    units = [row.units / first.units for row in rows]
    lines = {
        "processor time": [row.processor_s / first.processor_s for row in rows],
        "peak memory": [row.peak_mib / first.peak_mib for row in rows],
        "linear": units,
    }
    series = [
        Series(name, style, tuple(zip(units, values, strict=True)))
        for style, (name, values) in enumerate(lines.items())
    ]
    x = Axis.over(f"{title}, relative to {first.name}", units)
    y = Axis.over("relative to the first", [value for values in lines.values() for value in values])
    return line_chart(title, series, x, y, marks=True)


def stacked(charts: Sequence[str]) -> str:
    """One SVG of all charts, two in a row, with a legend above."""
    width, height, top = 560, 300, 34
    across, down = min(2, len(charts)), -(-len(charts) // 2)
    legend = "".join(
        f'<text class="title c{style}" x="{56 + 150 * style}" y="20" style="fill:currentColor">{name}</text>'
        for style, name in enumerate(("● processor time", "■ peak memory", "▲ linear"))
    )
    parts = [
        each.replace(
            '<svg class="chart"',
            f'<svg class="chart" x="{number % 2 * width}" y="{top + number // 2 * height}" '
            f'width="{width}" height="{height}"',
            1,
        )
        for number, each in enumerate(charts)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * width} {top + down * height}" '
        f'width="{across * width}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" style="fill:#fff"/>{legend}{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()
