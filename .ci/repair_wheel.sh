#!/usr/bin/env bash
# repair_wheel.sh WHEEL FOLDER: gives WHEEL the manylinux tag that its symbols allow, puts it into FOLDER, and checks
# that it works with any torch from 2.10 on. Used by `make wheel`, and by cibuildwheel in its container
# (pyproject.toml).
set -euo pipefail
wheel=$1 folder=$2
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

# torch's own libraries come with the user's torch. zip level 9 shrinks fat CUDA code to a third.
auditwheel repair --exclude 'libtorch*.so' --zip-compression-level 9 --wheel-dir "$place/wheel" "$wheel"
repaired=$(echo "$place"/wheel/*.whl)
python -m zipfile -e "$repaired" "$place/content"
library=$place/content/tmkt_kernels/libtmkt_kernels.so

torch-abi-audit --check torch --verbose "$library" | tee "$place/audit"
grep -q "Min torch: *2\.10\.0$" "$place/audit" || { echo "$library: needs a torch newer than 2.10.0"; exit 1; }
if nm --dynamic --undefined-only "$library" | grep -E ' _?Py[A-Z_]'; then
  echo "$library: expected no symbol of Python's, for one library serves every Python"
  exit 1
fi
mkdir -p "$folder"
mv "$repaired" "$folder"
echo "$(basename "$repaired"): $(du --bytes "$folder/$(basename "$repaired")" | cut -f1) bytes"
