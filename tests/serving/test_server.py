"""A server of the starter: answers are those of `run`, strangers do no harm, and what goes wrong is told apart."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import trimesh
import tritonclient.http as tritonclient
from PIL import Image
from running_server import SCENE, WAIT_S, Running, post, running, until
from test_picture_limits import png_bomb
from tritonclient.utils import InferenceServerException

import jotr_deploy
from jotr_deploy.bundle import open_bundle, starter_path
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.run import RunOptions, run
from jotr_deploy.serving.answer_formats import GLB, JPEG, NPZ, PERSON_FIELDS, VERTICES
from jotr_deploy.serving.app import AppOptions
from jotr_deploy.serving.batched_session import BatchedSession
from jotr_deploy.visual.result_files import PeopleFile, read_people

pytestmark = pytest.mark.slow

METRES, PIXELS = 1e-5, 0.01
LIMIT = 6


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    options = AppOptions(LIMIT, body_bytes=12_000_000, all_bodies_bytes=60_000_000, deadline_s=WAIT_S)
    with running(app=options) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene, mirrored and turned by its EXIF data, in three formats; and nobody."""
    folder = tmp_path_factory.mktemp("pictures")
    scene = Image.open(SCENE).resize((480, 360))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    exif.get_ifd(0x8769)[0xA405] = 28  # mm
    scene.save(folder / "a.jpg", quality=95)
    scene.rotate(90, expand=True).save(folder / "b.jpg", quality=95, exif=exif)
    scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "c.png")
    scene.crop((60, 0, 480, 360)).save(folder / "d.webp", quality=90)
    Image.new("RGB", (100, 80), "grey").save(folder / "e.png")
    return folder


@pytest.fixture(scope="module")
def results(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PeopleFile]:
    """What `run` makes of each."""
    out = tmp_path_factory.mktemp("results")
    for picture in pictures.iterdir():
        run(open_bundle(starter_path()), str(picture), out, RunOptions(threads=1, overlay=False))
    return {picture.name: read_people(out / f"{picture.stem}.npz", starter_path()) for picture in pictures.iterdir()}


def require_same(people: Any, expected: Any, names: Any = tuple(LAYOUT)) -> None:
    for name in names:
        limit = PIXELS if name.endswith("_px") else METRES if name.endswith("_m") else 1e-4
        found, wanted = np.asarray(getattr(people, name)), np.asarray(getattr(expected, name))
        assert found.shape == wanted.shape, name
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit, err_msg=name)


def test_every_picture_gets_the_people_that_run_finds(
    server: Running, pictures: Path, results: dict[str, PeopleFile]
) -> None:
    assert len(results["a.jpg"].people) == 2
    assert "28 mm" in results["b.jpg"].camera[0]
    with ThreadPoolExecutor(4) as pool:
        names = sorted(results) * 2

        def ask(name: str) -> httpx.Response:
            return server.client.post("/v1/people", content=(pictures / name).read_bytes(), headers={"Accept": NPZ})

        for name, answer in zip(names, pool.map(ask, names), strict=True):
            assert answer.status_code == 200, answer.text
            found, expected = read_people(io.BytesIO(answer.content), starter_path()), results[name]
            require_same(found.people, expected.people)
            for each in ("image_size_px", "labels", "crop_side", "mesh_sha256", "camera"):
                assert getattr(found, each) == getattr(expected, each), each
            assert found.bundle == ""  # no path of the server's machine
            assert {"role", "name", "sha256"} == set(found.facts["networks"][0])


def test_json_has_the_fields_that_were_asked_for(
    server: Running, pictures: Path, results: dict[str, PeopleFile]
) -> None:
    picture, expected = (pictures / "a.jpg").read_bytes(), results["a.jpg"]
    told = server.client.post("/v1/people", content=picture).json()
    assert (told["size_px"], told["skeleton"], told["left_out"]) == ([480, 360], "smpl30", 0)
    assert told["labels"] == list(expected.labels)
    assert {"queue", "decode", "detect", "pose", "crop", "network", "align"} <= set(told["ms"])
    assert set(told["people"][0]) == set(PERSON_FIELDS) - {VERTICES, "track_id"}
    for k, person in enumerate(told["people"]):
        require_same(type("Person", (), person), expected.people[k], person)
    told = server.client.post("/v1/people?fields=betas,vertices_m", content=picture).json()
    assert [list(person) for person in told["people"]] == [["betas", "vertices_m"]] * 2
    np.testing.assert_allclose(told["people"][1]["vertices_m"], expected.people.vertices_m[1], atol=METRES)
    nobody = server.client.post("/v1/people", content=(pictures / "e.png").read_bytes())
    assert (nobody.status_code, nobody.json()["people"]) == (200, [])


def test_at_most_the_surest_people_come_and_the_others_are_counted(
    server: Running, pictures: Path, results: dict[str, PeopleFile]
) -> None:
    told = server.client.post("/v1/people?max_people=1", content=(pictures / "a.jpg").read_bytes()).json()
    assert told["left_out"] == 1
    assert [person["score"] for person in told["people"]] == pytest.approx([results["a.jpg"].people.scores.max()])


def test_meshes_come_as_glb_npz_and_drawn(server: Running, pictures: Path, results: dict[str, PeopleFile]) -> None:
    picture, expected = (pictures / "a.jpg").read_bytes(), results["a.jpg"]
    glb = server.client.post("/v1/people", content=picture, headers={"Accept": GLB}).content
    scene = trimesh.load(io.BytesIO(glb), file_type="glb")
    assert sorted(len(mesh.vertices) for mesh in scene.geometry.values()) == [6890, 6890]
    npz = server.client.post("/v1/people?fields=vertices_m", content=picture, headers={"Accept": NPZ}).content
    with np.load(io.BytesIO(npz)) as stored:
        np.testing.assert_allclose(stored["vertices_m"], expected.people.vertices_m, atol=METRES)
        np.testing.assert_array_equal(stored["faces"], expected.faces)
    jpeg = server.client.post("/v1/people", content=picture, headers={"Accept": JPEG}).content
    drawn = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    with jotr_deploy.load(threads=1) as model:
        expected_bgr = model.draw(pictures / "a.jpg", expected.people)
    assert np.abs(drawn.astype(int) - expected_bgr).mean() < 3  # JPEG


# ── a foreign client of the Open Inference Protocol ──────────────────────────────────────────────────────────────


@pytest.fixture
def foreign(server: Running) -> Iterator[Any]:
    with tritonclient.InferenceServerClient("{}:{}".format(*server.address), network_timeout=WAIT_S) as client:
        yield client


def asked(arrays: dict[str, np.ndarray], in_binary: bool) -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        datatype = {"float32": "FP32", "uint8": "UINT8", "object": "BYTES"}[array.dtype.name]
        inputs.append(tritonclient.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=in_binary)
    return inputs


def answered(client: Any, model: str, arrays: dict[str, np.ndarray], in_binary: bool) -> dict[str, np.ndarray]:
    outputs = None if in_binary else [
        tritonclient.InferRequestedOutput(each["name"], binary_data=False)
        for each in client.get_model_metadata(model)["outputs"]
    ]  # fmt: skip
    result = client.infer(model, asked(arrays, in_binary), outputs=outputs, request_id="7", timeout=60_000_000)
    assert result.get_response()["id"] == "7"
    return {each["name"]: result.as_numpy(each["name"]) for each in result.get_response()["outputs"]}


def test_a_foreign_client_learns_about_the_server(foreign: Any) -> None:
    assert foreign.is_server_live()
    assert foreign.is_server_ready()
    about = foreign.get_server_metadata()
    assert (about["name"], about["extensions"]) == ("jotr-deploy", ["binary_tensor_data"])
    assert sorted(about["models"]) == ["detector", "mesh", "people", "pose"]
    for model in about["models"]:
        assert foreign.is_model_ready(model)
        assert foreign.is_model_ready(model, "1")
        assert foreign.get_model_metadata(model)["name"] == model
    assert not foreign.is_model_ready("nobody")
    mesh = foreign.get_model_metadata("mesh")
    assert {"name": "joints", "datatype": "FP32", "shape": [-1, 30, 2]} in mesh["inputs"]
    assert {"name": "vertices", "datatype": "FP32", "shape": [-1, 6890, 3]} in mesh["outputs"]


@pytest.mark.parametrize("in_binary", [True, False], ids=["binary", "JSON"])
def test_a_foreign_client_gets_people(
    foreign: Any, pictures: Path, results: dict[str, PeopleFile], in_binary: bool
) -> None:
    file = np.array([(pictures / "a.jpg").read_bytes()], object)
    image_bgr = cv2.imread(str(pictures / "c.png"))
    found = answered(foreign, "people", {"image": file}, True)
    require_same(type("People", (), found), results["a.jpg"].people)
    np.testing.assert_array_equal(found["faces"], results["a.jpg"].faces)
    small = {"image_bgr": image_bgr} if in_binary else {"image_bgr": image_bgr[::8, ::8]}
    found = answered(foreign, "people", small, in_binary)
    assert set(found) == {*LAYOUT, "faces"}
    if in_binary:
        require_same(type("People", (), found), results["c.png"].people)
    boxes = np.float32([[10, 5, 40, 44]])
    found = answered(foreign, "people", {**small, "boxes": boxes}, in_binary)
    assert len(found["vertices_m"]) == 1
    assert answered(foreign, "people", {**small, "boxes": boxes[:0]}, in_binary)["vertices_m"].shape == (0, 6890, 3)


@pytest.mark.parametrize("in_binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("role", ["detector", "pose", "mesh"])
def test_a_foreign_client_runs_every_network(
    foreign: Any, server: Running, role: str, in_binary: bool, rng: np.random.Generator
) -> None:
    about = foreign.get_model_metadata(role)["inputs"]
    rows = 2 if in_binary else 1
    feeds = {each["name"]: rng.random((rows, *each["shape"][1:]), np.float32) for each in about}
    found = answered(foreign, role, feeds, in_binary)
    expected = server.server.served.networks[role](feeds)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_foreign_client_understands_every_refusal(foreign: Any, server: Running) -> None:
    feeds = {"image_bgr": np.zeros((4, 4, 3), np.uint8)}
    for model, arrays, cause in (
        ("nobody", feeds, "there is no model"),
        ("people", {}, "no inputs"),
        ("people", {"image": np.array([b"no picture"], object)}, "not a picture"),
        ("people", {**feeds, "hair": feeds["image_bgr"]}, "the inputs are"),
        ("people", {**feeds, "boxes": np.float32([[5, 5, 1, 1]])}, "no area"),
        ("mesh", feeds, "this network takes"),
        ("detector", {name: np.zeros((0, *spec.shape[1:]), np.float32)
                      for name, spec in server.server.served.served["detector"].inputs.items()}, "give 1 to 16"),
    ):  # fmt: skip
        with pytest.raises(InferenceServerException, match=cause):
            foreign.infer(model, asked(arrays, True))
    for call in (foreign.get_model_repository_index, foreign.get_inference_statistics):
        with pytest.raises(InferenceServerException, match="404"):
            call()
    with pytest.raises(InferenceServerException, match="compressed bodies"):
        foreign.infer("people", asked(feeds, True), request_compression_algorithm="gzip")


def test_changed_requests_are_refused_and_never_break_the_server(server: Running, rng: np.random.Generator) -> None:
    """A few of the requests that `benchmarks/serving_soak.py` sends by the thousand."""
    from mutated_requests import mutated_requests

    codes = set()
    for path, headers, body in mutated_requests(rng, SCENE.read_bytes(), 150):
        answer = server.client.post(path, content=body, headers=headers)
        codes.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        assert answer.status_code == 200 or "error" in answer.json()
    assert codes >= {200, 400}


# ── strangers ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bodies_and_pictures_beyond_the_limits_are_refused(server: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(13):
            yield bytes(1_000_000)

    cases: list[tuple[Any, dict[str, str], int]] = [
        (bytes(12_000_001), {}, 413),
        (chunks(), {}, 413),
        (png_bomb(20_000, 20_000, 0), {}, 413),
        (b"", {}, 415),
        (b"https://example.org/a.jpg", {}, 415),
        (SCENE.read_bytes()[:5000], {}, 422),
        (SCENE.read_bytes(), {"Content-Encoding": "gzip"}, 415),
        (SCENE.read_bytes(), {"Accept": "text/html"}, 406),
    ]
    for body, headers, status in cases:
        answer = server.client.post("/v1/people", content=body, headers=headers)
        assert (answer.status_code, list(answer.json())) == (status, ["error", "remedy"])
    for query in ("fields=hair", "max_people=0", "max_people=x", "deadline_s=-1", "deadline_s=nan", "url=file:///etc"):
        assert server.client.post(f"/v1/people?{query}", content=SCENE.read_bytes()).status_code == 400
    for method, path, status in (("GET", "/v1/people", 405), ("GET", "/v2/", 404), ("GET", "/../etc/passwd", 404),
                                 ("POST", "/v2/models/people/versions/2/infer", 404)):  # fmt: skip
        answer = server.client.request(method, path)
        assert (answer.status_code, list(answer.json())) == (status, ["error", "remedy"])


@contextmanager
def blocked(session: BatchedSession, busy_since_s: float | None = None) -> Iterator[threading.Event]:
    """The network does not work inside the block; the event is set when it has been called."""
    inner, entered, go_on = session._run_together, threading.Event(), threading.Event()

    def wait(*arguments: Any) -> None:
        entered.set()
        session._busy_since_s = busy_since_s
        assert go_on.wait(WAIT_S)
        inner(*arguments)

    session._run_together = wait  # type: ignore[method-assign]
    try:
        yield entered
    finally:
        go_on.set()
        del session._run_together


def test_a_full_server_says_so_at_once_and_recovers(server: Running) -> None:
    picture = SCENE.read_bytes()
    with ThreadPoolExecutor(LIMIT) as pool:
        with blocked(server.server.served.networks["detector"]):
            waiting = [pool.submit(server.client.post, "/v1/people", content=picture) for _ in range(LIMIT)]
            until(lambda: server.metric("jotr_admitted") == LIMIT, "a full server")
            answer = server.client.post("/v1/people", content=picture)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert "full" in answer.json()["error"]
            assert server.client.get("/v2/health/live").status_code == 200
            assert 'jotr_rejected_total{reason="full"} 1.0' in server.client.get("/metrics").text
        assert [each.result(WAIT_S).status_code for each in waiting] == [200] * LIMIT
    assert server.metric("jotr_admitted") == 0
    assert server.client.post("/v1/people", content=picture).status_code == 200


def test_a_network_that_hangs_costs_its_requests_their_time_and_the_server_its_readiness(server: Running) -> None:
    with blocked(server.server.served.networks["mesh"], busy_since_s=0.0) as entered:
        answer = server.client.post("/v1/people?deadline_s=0.5", content=SCENE.read_bytes())
        assert answer.status_code == 504
        assert entered.wait(WAIT_S)
        assert server.client.get("/v2/health/live").status_code == 200
        ready = server.client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["error"]) == (503, "the network mesh does not answer")
        refused = server.client.post("/v1/people", content=SCENE.read_bytes())
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    until(lambda: server.client.get("/v2/health/ready").status_code == 200, "a server that is ready again")
    assert server.client.post("/v1/people", content=SCENE.read_bytes()).status_code == 200


def test_who_leaves_makes_room(server: Running) -> None:
    left = server.metric("jotr_cancelled_total")
    picture = SCENE.read_bytes()
    with ThreadPoolExecutor(1) as pool, blocked(server.server.served.networks["detector"]) as entered:
        stays = pool.submit(server.client.post, "/v1/people", content=picture)
        assert entered.wait(WAIT_S)
        with server.connection(post(picture)):
            until(lambda: server.metric("jotr_admitted") == 2, "two requests")
        until(lambda: server.metric("jotr_admitted") == 1, "one request")
        with server.connection(post(picture[:1000], length=len(picture))):
            pass  # leaves in the middle of its body
        until(lambda: server.metric("jotr_cancelled_total") == left + 2, "two who left")
    assert stays.result(WAIT_S).status_code == 200
    assert server.metric("jotr_admitted") == 0
    assert server.server.app._admission.held_bytes == 0


def test_tiny_deadlines_leave_no_trace(server: Running) -> None:
    """Good load, load that gives up, good load again: the last is as good as the first."""
    for deadline, expected in ((WAIT_S, {200}), (0.001, {504}), (WAIT_S, {200})):
        path = f"/v1/people?deadline_s={deadline}"
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda _: server.client.post(path, content=SCENE.read_bytes()), range(4))  # noqa: B023
            assert {answer.status_code for answer in answers} == expected
    assert server.metric("jotr_admitted") == 0


def test_what_a_client_counts_is_what_the_server_counts(server: Running) -> None:
    def counted() -> dict[str, float]:
        return {code: server.metric("jotr_requests_total", endpoint="v1_people", code=code) for code in ("200", "415")}

    before, people = counted(), server.metric("jotr_people_total")
    for body in (SCENE.read_bytes(), b"text", SCENE.read_bytes()):
        server.client.post("/v1/people", content=body)
    assert {code: count - before[code] for code, count in counted().items()} == {"200": 2, "415": 1}
    assert server.metric("jotr_people_total") - people == 4
    text = server.client.get("/metrics").text
    for name in ("jotr_request_seconds_bucket", "jotr_stage_seconds_bucket", "jotr_network_batch_size_bucket",
                 "jotr_network_queue_seconds_bucket", "jotr_ready 1.0", "process_resident_memory_bytes"):  # fmt: skip
        assert name in text


def test_an_error_of_ours_is_told_by_number_and_nothing_else(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(server.server.served, "answer", fail)
    answer = server.client.post("/v1/people", content=SCENE.read_bytes())
    assert answer.status_code == 500
    assert "secret" not in answer.text
    number = answer.json()["error"].split()[-1].rstrip(")")
    assert number in caplog.text
    assert "secret" in caplog.text  # for whoever runs the server


def test_the_page_names_nothing_outside_the_server(server: Running) -> None:
    answer = server.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.split("'nonce-")[1].split("'")[0] in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")


def test_a_token_guards_all_but_probes_and_the_page(tmp_path: Path) -> None:
    token = "a-secret-of-some-length"
    with running(app=AppOptions(token=token)) as server:
        for method, path, status in (
            ("POST", "/v1/people", 401), ("GET", "/metrics", 401), ("GET", "/v2", 401), ("GET", "/v2/models/mesh", 401),
            ("POST", "/v2/models/mesh/infer", 401), ("GET", "/v2/health/live", 200), ("GET", "/v2/health/ready", 200),
            ("GET", "/", 200),
        ):  # fmt: skip
            for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
                assert server.client.request(method, path, headers=wrong).status_code == status
        right = {"Authorization": f"Bearer {token}"}
        assert server.client.post("/v1/people", content=SCENE.read_bytes(), headers=right).status_code == 200
        assert json.loads(server.client.get("/v2", headers=right).content)["name"] == "jotr-deploy"
