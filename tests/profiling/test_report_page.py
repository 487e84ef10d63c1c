import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from test_bench_table import TIMING, network, result

from jotr_deploy.errors import OutputError
from jotr_deploy.profiling.bench_result import BatchResult, StageResult, Timing
from jotr_deploy.profiling.bench_table import milliseconds
from jotr_deploy.profiling.charts import STYLES, Axis
from jotr_deploy.profiling.report import DATA, report_page, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAMES = ("mesh.onnx", "mesh.int8.onnxruntime.onnx", "mesh.bf16.openvino.onnx", "mesh.fp16.sm90.engine", "PyTorch eager")


def full(**changed):
    """Networks of which no two figures are the same."""
    networks = []
    for row, name in enumerate(NAMES):
        timed = [
            Timing.of([(5 + 31 * row) * batch * (100 + n) / 1e5 for n in range(40 * batch)], busy=row == 3)
            for batch in (1, 4, 16)
        ]
        rows = [
            BatchResult(batch, timing, round(1000 * batch / timing.p50_ms, 2), 1.5)
            for batch, timing in zip((1, 4, 16), timed, strict=True)
        ]
        memory = {"size_mb": 10.5 + row, "cold_start_s": 1.25 + row, "peak_memory_mb": 200.25 + row}
        networks.append(network(name, batches=tuple(rows), **memory))
    stages = [("decode", 2.4), ("detect", 12.1), ("pose", 31.3), ("crop", 0.05), ("network", 26.6), ("draw", 75.4)]
    timed = tuple(StageResult(name, Timing.of([ms / 1000] * 20), round(ms / 147.85, 4)) for name, ms in stages)
    return result(networks, stages=timed, **changed)


def cells(page):
    return [unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]


def said(page):
    return unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)))


def test_it_carries_the_json():
    found = full()
    (data,) = re.findall(rf'<script type="application/json" id="{DATA}">(.*?)</script>', report_page(found))
    assert json.loads(data) == found.as_dict()


def test_every_figure_of_the_json_is_in_its_tables():
    found = full()
    shown, plain = cells(report_page(found)), found.as_dict()
    timings = [row["timing"] for each in plain["networks"] for row in each["batches"]]
    timings += [stage["timing"] for stage in plain["stages"]]
    for timing in timings:
        for figure in ("p50_ms", "p90_ms", "mean_ms"):
            assert milliseconds(timing[figure]) in shown
        assert milliseconds(timing["p99_ms"]) + ("*" if timing["kept"] < 100 else "") in shown
    for each in plain["networks"]:
        assert {each["name"].removesuffix(".onnx"), each["precision"], each["engine"]} <= set(shown)
        assert {f"{each['cold_start_s']:.2f}", f"{each['peak_memory_mb']:.0f}", f"{each['size_mb']:.0f}"} <= set(shown)
        for row in each["batches"]:
            assert f"{row['people_per_s']:.1f}" in shown


def test_what_must_be_said_is_said():
    text = said(report_page(full(labels=("untrained",), notes=("left out",), warnings=("busy machine",))))
    for words in ("untrained", "left out", "busy machine", "A Processor, 2 cores", "A GPU, driver 1.2", "numpy 2.0",
                  "0.1 0.2 0.3", "network: one call.", "each engine's default",
                  "*: p99 of fewer than 100 samples"):  # fmt: skip
        assert words in text


def test_it_needs_no_network():
    page = report_page(full())
    assert re.findall(r"https?:|//\w|url\(|@import|src=|href=|<link|<img|<iframe", page) == []
    assert re.findall(r"<script(?! type=\"application/json\")", page) == []


def test_text_is_escaped():
    odd = '<b>&"</script><script>alert(1)</script>'
    networks = [network(odd, timing=Timing.of([0.01, 0.02]), engine=odd, precision=odd)]
    stages = (StageResult(odd, TIMING, 0.5),)
    texts = dict.fromkeys(("labels", "notes", "warnings", "timed"), (odd,))
    page = report_page(result(networks, stages=stages, bundle=odd, **texts))
    assert "<b>" not in page
    assert page.count("<script") == page.count("</script>") == 1
    assert odd in said(page)


@pytest.mark.parametrize(
    "found",
    [
        result([], stages=()),
        result([network(batches=())], stages=()),
        result([network(timing=None, cold_start_s=None, peak_memory_mb=None, size_mb=None)]),
        result([network(timing=Timing(0, 0, 0, 0, 0, 1, 0, True, (0.0,) * 21))]),  # too fast for the clock
        result([network(timing=Timing.of([0.01]))] * (STYLES + 3)),
        full(),
    ],
)
def test_whatever_was_measured_makes_a_page(found):
    page = report_page(found)
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    assert "nan" not in said(page).split()
    for tag in ("svg", "g", "div", "figure", "table", "tr", "ul", "dl", "title", "text"):
        assert len(re.findall(rf"<{tag}[\s>]", page)) == page.count(f"</{tag}>"), tag


def test_batches_of_one_size_and_times_on_the_gpu():
    gpu_ms = {"enqueue": 0.125, "gpu": 4.5, "h2d": 0.25, "d2h": 12.34}
    page = report_page(result([network(batches=(BatchResult(4, TIMING, 50.0, None, gpu_ms),))]))
    assert {"0.12", "4.50", "0.25", "12.3"} <= set(cells(page))


def test_it_appears_whole_or_not_at_all(tmp_path):
    write_report(full(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == report_page(full())
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(full(), tmp_path / "no" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("values", [[], [0.0], [1, 2, 9], [1, 2, 30], [0.001, 5000], [7], [123456.7]])
def test_an_axis_holds_its_values_and_few_ticks(values):
    axis = Axis.over("ms", values)
    assert all(0 <= axis.at(value) <= 1 for value in values if value > 0)
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert 1 <= len(axis.ticks) <= 8
    assert axis.log == (len(values) > 1 and max(values) > 10 * min(values))
    assert list(axis.ticks) == sorted(set(axis.ticks))


# Runs in the page: text of a chart that crosses other text or leaves its chart, and whether the page is too wide.
LOOK = """<script>addEventListener('load', () => {
  const wrong = [];
  for (const chart of document.querySelectorAll('svg.chart')) {
    const frame = chart.getBoundingClientRect();
    const boxes = [...chart.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
    boxes.forEach(([a, p], i) => {
      if (p.left < frame.left - 1 || p.right > frame.right + 1) wrong.push(a + ' leaves its chart');
      boxes.slice(i + 1).forEach(([b, q]) => {
        if (p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom)
          wrong.push(a + ' crosses ' + b);
      });
    });
  }
  if (document.documentElement.scrollWidth > innerWidth) wrong.push('the page is too wide');
  document.title = 'looked at ' + innerWidth + ': ' + wrong.join('; ');
})</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 600])
def test_no_label_covers_another_in_a_browser(tmp_path, width):
    page = tmp_path / "report.html"
    page.write_text(report_page(full(warnings=("a long warning " * 20,))).replace("</body>", LOOK))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--window-size={width},900",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert re.search(r"<title>(.*?)</title>", done.stdout)[1] == f"looked at {width}: "
