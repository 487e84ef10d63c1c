"""Pictures as phones, cameras and web servers really give them."""

import io
import struct
import unicodedata
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from streams import plays, says, served

from jotr_deploy.errors import MissingDependency, SourceError
from jotr_deploy.runtime.sources.images import count_pictures, decode_image
from jotr_deploy.runtime.sources.opening import open_source
from jotr_deploy.runtime.sources.picture_kinds import picture_kind

FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WebP": "WEBP",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "GIF": "GIF",
    "AVIF": "AVIF",
    "JPEG 2000": "JPEG2000",
    "PNM": "PPM",
}
HALVES = np.zeros((40, 64, 3), np.uint8)
HALVES[:, :20], HALVES[:, 20:] = (30, 60, 200), (200, 180, 40)


def encoded(kind, image=HALVES, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, FORMATS[kind], **options)
    return file.getvalue()


def written(path, data):
    path.write_bytes(data)
    return path


def turned(by):
    exif = Image.Exif()
    exif[274] = by
    return exif


def animation(kind, count=3):
    frames = [Image.fromarray(np.roll(HALVES, 8 * number, 1)) for number in range(count)]
    file = io.BytesIO()
    frames[0].save(file, FORMATS[kind], save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.jfif", "a", "a.mp4", "a.PNG", "a.jpg"])
@pytest.mark.parametrize("kind", FORMATS)
def test_the_content_tells_a_picture(tmp_path, kind, name):
    with open_source(written(tmp_path / name, encoded(kind))) as source:
        assert (source.kind, source.total, source.size_px, source.fps) == ("image", 1, (64, 40), 0)
        (frame,) = source
    assert frame.name == name
    off = np.abs(frame.image_bgr.astype(int) - HALVES[..., ::-1])
    assert np.median(off) <= 4, "blue is blue"


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("BMP", "GIF", "JPEG 2000", "PNM")])
@pytest.mark.parametrize("by", range(1, 9))
def test_pictures_are_turned_upright(kind, by):
    shown = {
        1: HALVES,
        2: HALVES[:, ::-1],
        3: HALVES[::-1, ::-1],
        4: HALVES[::-1],
        5: HALVES.transpose(1, 0, 2),
        6: np.rot90(HALVES, -1),
        7: np.rot90(HALVES, -1)[:, ::-1][::-1, ::-1],
        8: np.rot90(HALVES),
    }[by][..., ::-1]
    image = decode_image(encoded(kind, exif=turned(by)), "a", upright=True)
    assert image.shape == shown.shape
    assert np.median(np.abs(image.astype(int) - shown)) <= 4
    if kind != "TIFF":  # which Pillow always turns
        assert decode_image(encoded(kind, exif=turned(by)), "a").shape == HALVES.shape


def test_damaged_exif_data_turn_nothing():
    data = encoded("JPEG", exif=turned(6)).replace(b"Exif\0\0MM", b"Exif\0\0XX").replace(b"Exif\0\0II", b"Exif\0\0XX")
    assert decode_image(data, "a", upright=True).shape == HALVES.shape


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_modes_of_pixels(mode):
    kind = "TIFF" if mode in ("CMYK", "F") else "PNG"
    file = io.BytesIO()
    grey = Image.fromarray(np.full((4, 6), 255, np.uint8))
    stored = Image.fromarray(np.full((4, 6), 65535, np.uint16)) if mode == "I;16" else grey.convert("RGB").convert(mode)
    stored.save(file, kind)
    if mode == "F":
        with pytest.raises(SourceError, match=r"a: pixels have 32 bits \(F\), not 8 or 16"):
            decode_image(file.getvalue(), "a")
    else:
        np.testing.assert_array_equal(decode_image(file.getvalue(), "a"), np.full((4, 6, 3), 255))


def test_a_jpeg_of_four_inks():
    file = io.BytesIO()
    Image.fromarray(HALVES).convert("CMYK").save(file, "JPEG")
    image = decode_image(file.getvalue(), "a")
    assert np.median(np.abs(image.astype(int) - HALVES[..., ::-1])) <= 4


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize(
    ("kind", "filled"), [*((kind, False) for kind in FORMATS), *((k, True) for k in ("JPEG", "PNG", "GIF"))]
)
def test_half_a_picture_is_none(kind, filled, share, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    whole = encoded(kind, noise)
    cut = whole[: int(share * len(whole))]
    cut += bytes(len(whole) - len(cut)) * filled  # as an unfinished download is
    with pytest.raises(SourceError):
        decode_image(cut, "a")
    assert capfd.readouterr() == ("", "")


def test_what_stands_behind_a_jpeg_is_no_harm():
    for behind in (b"SEFT" * 20, bytes(3000), b"\0\0\0\x18ftypmp42" + bytes(500)):
        assert decode_image(encoded("JPEG") + behind, "a").shape == HALVES.shape


def test_too_many_pixels():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(SourceError) as caught:
        decode_image(bomb, "a.png")
    assert caught.value.cause == "a.png: the PNG picture has too many pixels"


def test_a_raw_photo_is_not_its_preview():
    with pytest.raises(SourceError, match="a raw photo, with only a small preview readable"):
        decode_image(encoded("TIFF", tiffinfo={254: 1}), "a.dng")


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_an_animation_is_a_film(tmp_path, kind):
    with open_source(written(tmp_path / "a.gif", animation(kind))) as source:
        assert (source.kind, source.size_px) == ("video", (64, 40))
        frames = list(source)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert len({frame.image_bgr.tobytes() for frame in frames}) == 3


@pytest.mark.parametrize("kind", ["WebP", "AVIF"])
def test_an_animation_that_is_not_read(tmp_path, kind):
    path = written(tmp_path / "a.webp", animation(kind))
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert caught.value.cause == f"{path}: an animated {kind} picture, which is not supported"


def test_pages_are_counted(tmp_path, caplog):
    path = written(tmp_path / "a.tif", animation("TIFF"))
    with open_source(path) as source:
        assert source.total == 1
    assert caplog.messages == [f"{path}: holds 3 pictures; the first is read"]


def heif(brand=b"heic"):
    return b"\0\0\0\x18ftyp" + brand + bytes(4) + b"mif1heic" + bytes(60)


def test_a_heic_picture_is_whole_or_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pi_heif", None)
    with pytest.raises(MissingDependency) as caught:
        decode_image(heif(), "IMG_1.HEIC")
    assert caught.value.cause == "IMG_1.HEIC: a HEIC picture, and the package pi-heif is not installed"
    assert caught.value.remedy == "pip install '.[heif]' in a clone of jotr-deploy, or save it as PNG or JPEG"


def test_a_damaged_heic_picture():
    pytest.importorskip("pi_heif", reason="pip install pi-heif")
    with pytest.raises(SourceError, match="a: the HEIC picture is damaged"):
        decode_image(heif(), "a")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", None),
        (b"\xff\xd8", None),
        (heif(), "HEIC"),
        (heif(b"mif1"), "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", None),
        (b"II*\0\x10\0\0\0CR\2\0", None),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"P6 4 4", "PNM"),
        (b"Picture", None),
        (b"BMW is a car", None),
    ],
)
def test_kinds_by_their_first_bytes(head, kind):
    assert picture_kind(head) == kind


def test_a_folder_of_mixed_pictures(tmp_path, caplog):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, kind in (("a.jpg", "JPEG"), ("b.AVIF", "AVIF"), ("c.jfif", "JPEG"), ("d", "PNG"), ("e.jp2", "JPEG 2000")):
        written(folder / name, encoded(kind))
    for name, data in (("clip.mp4", b"\0\0\0\x10ftypisom" + bytes(8)), ("raw.nef", bytes(9)), ("joints.json", b"[]")):
        written(folder / name, data)
    with open_source(folder) as source:
        assert [frame.name for frame in source] == ["a.jpg", "b.AVIF", "c.jfif", "d", "e.jp2"]
        assert list(source.left_out) == ["clip.mp4", "raw.nef"]
        assert source.read == 5
    assert caplog.messages == [f"{folder}: left out: clip.mp4, raw.nef (not supported pictures)"]


def test_pictures_that_are_left_out_say_why(tmp_path):
    written(tmp_path / "1.png", encoded("PNG"))
    written(tmp_path / "2.png", encoded("PNG")[:60])
    written(tmp_path / "3.jpg", b"<!doctype html><p>sign in")
    skipped = []
    with open_source(tmp_path, skipped) as source:
        assert [frame.name for frame in source] == ["1.png"]
        assert source.left_out == {
            "2.png": f"{tmp_path / '2.png'}: the PNG picture is cut off",
            "3.jpg": f"{tmp_path / '3.jpg'}: an HTML page (a download page rather than the file),"
            " not a supported picture",
        }
    assert skipped == ["2.png", "3.jpg"]


@pytest.mark.parametrize("path", ["/photo.jpg", "/photo", "/get?id=7"])
def test_a_picture_behind_a_url_is_upright(path):
    with served(plays(encoded("JPEG", exif=turned(6)))) as url, open_source(url + path, upright=True) as source:
        assert (source.kind, source.total, source.size_px) == ("image", 1, (40, 64))
        assert [frame.index for frame in source] == [0]


def test_half_a_picture_behind_a_url():
    with (
        served(says(200, encoded("JPEG")[:400])) as url,
        pytest.raises(SourceError, match=r"photo\.jpg: the JPEG picture is damaged"),
    ):
        open_source(f"{url}/photo.jpg")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("where", ["Zoë/Müller.png", "Zoë", "Zoë/M*.png"])
def test_accents_are_spelt_either_way(tmp_path, form, where):
    other = "NFD" if form == "NFC" else "NFC"
    folder = tmp_path / unicodedata.normalize(other, "Zoë")
    folder.mkdir()
    written(folder / unicodedata.normalize(other, "Müller.png"), encoded("PNG"))
    with open_source(tmp_path / unicodedata.normalize(form, where)) as source:
        assert source.total == 1


def test_a_file_on_this_machine_as_a_url(tmp_path):
    path = written(tmp_path / "a b.png", encoded("PNG"))
    with open_source(path.as_uri()) as source:
        assert (source.kind, source.name) == ("image", "a b.png")


def test_jpeg_pixels_are_those_of_opencv():
    data = encoded("JPEG", np.random.default_rng(1).integers(0, 256, (33, 47, 3), np.uint8))
    np.testing.assert_array_equal(decode_image(data, "a"), cv2.imdecode(np.frombuffer(data, np.uint8), 1))


def test_a_count_of_one_for_what_is_no_animation():
    assert [count_pictures(encoded(kind), "a") for kind in FORMATS] == [1] * len(FORMATS)


def jpeg(value, **more):
    data = io.BytesIO()
    Image.new("RGB", (16, 8), (value, value, value)).save(data, "JPEG", **more)
    return data.getvalue()


def test_jpegs_one_after_another_are_a_film(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"".join(jpeg(40 * at) for at in range(4)))
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert caught.value.cause == f"{path}: a sequence of JPEG pictures, that is a motion JPEG film"
    with open_source(path.rename(tmp_path / "a.mjpeg")) as source:
        assert source.kind == "video"
        assert [round(float(frame.image_bgr.mean()), -1) for frame in source] == [0, 40, 80, 120]


@pytest.mark.parametrize(
    "data",
    [
        jpeg(40),
        jpeg(40) + b"more",
        jpeg(40, exif=Image.Exif()) + jpeg(80),  # a photo and its depth
        jpeg(40, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    ],
)
def test_a_photo_is_one_picture_and_silent(tmp_path, data, recwarn):
    (tmp_path / "a.jpg").write_bytes(data)
    with open_source(tmp_path / "a.jpg", upright=True) as source:
        assert (source.kind, source.orientation_of(0), len(list(source))) == ("image", 1, 1)
    assert not recwarn.list


def other_picture(kind):
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "what", "remedy"),
    [
        (other_picture("PCX"), "a PCX picture", "save it as PNG or JPEG"),
        (other_picture("SGI"), "an SGI picture", "save it as PNG or JPEG"),
        (other_picture("DDS"), "a DirectDraw picture", "save it as PNG or JPEG"),
        (other_picture("ICO"), "a Windows icon picture", "save it as PNG or JPEG"),
        (b"qoif" + bytes(60), "a QOI picture", "save it as PNG or JPEG"),
        (b"P7\nWIDTH 1\n", "a PAM picture", "save it as PNG or JPEG"),
        (b"<svg xmlns='a'></svg>", "an SVG picture", "save it as PNG or JPEG"),
        (b"\xff\x0a" + bytes(60), "a JPEG XL picture", "save it as PNG or JPEG"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "a camera's raw picture", "develop it"),
        (b"IIU\0\x18\0\0\0" + bytes(60), "a camera's raw picture", "develop it"),
        (b"IIRO\x08\0\0\0" + bytes(60), "a camera's raw picture", "develop it"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(60), "a camera's raw picture", "develop it"),
    ],
)
def test_pictures_that_are_not_read_are_no_films_of_one_frame(tmp_path, data, what, remedy):
    for name in ("a.jpg", "a"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError) as caught:
            open_source(tmp_path / name)
        assert caught.value.cause == f"{tmp_path / name}: {what}, which is not supported"
        assert caught.value.remedy.startswith(remedy)


def test_bytes_of_which_ffmpeg_makes_one_frame_are_no_film(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\n" + jpeg(40))
    with pytest.raises(SourceError, match="data of an unknown kind"):
        open_source(tmp_path / "a.jpg")


def test_pictures_in_folders_of_a_folder_are_pointed_at(tmp_path):
    (tmp_path / "deep").mkdir()
    with pytest.raises(SourceError) as caught:
        open_source(tmp_path)
    assert caught.value.remedy == f"for those in its subfolders give a glob in quotes: '{tmp_path}/**/*.jpg'"
