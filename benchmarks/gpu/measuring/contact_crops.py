"""First contact: crops cut on the GPU by ONNX Runtime, against OpenCV's."""

from __future__ import annotations

from measuring.report import LeftOut, Report, needs

ROUNDS = 30


def measure(report: Report) -> None:
    needs("numpy", "cv2", "pydantic", "onnx", "onnxruntime", "cuda.bindings")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise LeftOut(f"this ONNX Runtime ({onnxruntime.__version__}) has no CUDA: needs onnxruntime-gpu")
    from measuring.crop_times import LIMIT_GREY, measured

    for row in measured(ROUNDS):
        what = f"{row.people} people, {row.width_px} x {row.height_px}"
        report.value(f"largest difference of {what}", row.max_grey, "grey levels", LIMIT_GREY)
        note = f"GPU {row.gpu_ms:.2f} ms, CPU and upload {row.cpu_ms:.2f} ms"
        report.value(f"CPU's time over the GPU's, {what}", row.cpu_ms / row.gpu_ms, "x", note=note)
