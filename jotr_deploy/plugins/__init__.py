"""The operator `jotr::TrilinearSample3D` in its forms: NumPy, PyTorch, ONNX local function.

Signature: `(features: T [B,D,H,W,C], points: float32 [B,P,3]) -> T [B,P,C]`, T float32, float16 or bfloat16.
A point is x, y, z in 0..1 along W, H, D with the corners aligned (0 and 1 are the centres of the first and the last
voxel). Weights are computed in float32. Outside the volume features fade to zero over one voxel (zero padding).
There are no attributes.
"""

DOMAIN = "jotr"
NAME = "TrilinearSample3D"
VERSION = 1
