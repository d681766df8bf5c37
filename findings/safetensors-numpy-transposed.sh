#!/usr/bin/env bash
# Guess:  safetensors.numpy.save_file(array.T) writes the transposed values, or refuses (as
#         safetensors.torch does for tensors that are not contiguous).
# Seen:   safetensors 0.8.0 with numpy 2.2.6: the shape is that of the view, the bytes are those of the
#         memory underneath. A transposed, strided or Fortran-ordered array is saved with wrong values,
#         without an error. Wrap it in np.ascontiguousarray first.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
cat > run.py <<'PY'
import numpy as np
from safetensors.numpy import load_file, save_file
a = np.arange(6, dtype=np.float32).reshape(2, 3)
views = {"transposed": a.T, "strided": a[:, ::2], "fortran": np.asfortranarray(a), "contiguous": np.ascontiguousarray(a.T)}
right = {}
for name, view in views.items():
    save_file({"t": view}, "t.safetensors")
    got = load_file("t.safetensors")["t"]
    right[name] = got.shape == view.shape and bool((got == view).all())
print(right)
assert right == {"transposed": False, "strided": False, "fortran": False, "contiguous": True}, right
PY
python3 -m venv v
v/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 safetensors==0.8.0
v/bin/python run.py
