#!/usr/bin/env bash
# Makes the lock files in python/locks/. Run it on a machine that reaches the package index; uv's own configuration says
# which one. Nothing is fetched at deploy time: hosts install what these files pin, by hash.
#
#   python/tools/refresh_locks.sh controller           controller.txt, from controller.in, and then dev.txt
#   python/tools/refresh_locks.sh dev                  dev.txt, from dev.in: what controller.txt does not have already
#   python/tools/refresh_locks.sh edge-audit           edge-audit.txt, from edge-audit.in
#   python/tools/refresh_locks.sh vllm                 vllm-*.txt: every row of vllm-releases.toml
#   python/tools/refresh_locks.sh vllm 0.33.0 cuda     one row of it; a new release is a new row first
#   python/tools/refresh_locks.sh convert 3.11 2.13.0  convert-py311.txt: turns a GGUF into safetensors; Python, torch
#   python/tools/refresh_locks.sh gpu-exporter         gpu-exporter.txt: nvitop-exporter, for hosts with GPUs
#
# Run it in the project's environment (.ci/setup), which has uv. lock_vllm.py says how a lock of vLLM is made; it
# downloads no wheel. torch's CPU build (version ends in +cpu) is on PyTorch's own index: name it in uv's configuration,
# with UV_INDEX_STRATEGY=unsafe-best-match. CUDA's wheels come from the package index alone.
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

publish() { # publish FILE NAME: replaces the old lock in one step
  install -m 0644 "$1" "$locks/.$2.new"
  mv "$locks/.$2.new" "$locks/$2"
  echo "$locks/$2: $(grep -c '^[a-z0-9].*==' "$locks/$2") pins"
}

lock_controller() {
  compile "$scratch/controller.txt" "$locks/controller.in" --python-version 3.11
  publish "$scratch/controller.txt" controller.txt
}

lock_dev() { # both locks go into one environment, so what the controller has is the same version here, and is left out
  local pins
  local -a left_out
  pins=$(sed -nE 's/^([a-z0-9._-]+==[^ ;]+).*/\1/p' "$locks/controller.txt")
  mapfile -t left_out < <(sed 's/^/--no-emit-package=/; s/==.*//' <<<"$pins")
  compile "$scratch/dev.txt" "$locks/dev.in" --python-version 3.11 --constraint - "${left_out[@]}" <<<"$pins"
  publish "$scratch/dev.txt" dev.txt
}

lock_edge_audit() { # what the controller has too is the same version, but for the older cryptography that sslyze needs
  sed -nE 's/^([a-z0-9._-]+==[^ ;]+).*/\1/p' "$locks/controller.txt" | grep -v '^cryptography==' >"$scratch/constraints.txt"
  compile "$scratch/edge-audit.txt" "$locks/edge-audit.in" --python-version 3.11 --constraint "$scratch/constraints.txt"
  publish "$scratch/edge-audit.txt" edge-audit.txt
}

lock_convert() { # lock_convert PYTHON TORCH
  local name=convert-py${1//./}
  printf "%s ; sys_platform == 'never'\n" "${dropped[@]}" >"$scratch/overrides.txt"
  printf '%s\n' accelerate gguf safetensors tokenizers transformers "torch==$2+cpu" >"$scratch/convert.in"
  compile "$scratch/wide.txt" "$scratch/convert.in" --python-version "$1" --python-platform x86_64-manylinux_2_36 \
    --only-binary :all: --override "$scratch/overrides.txt" --index-strategy unsafe-best-match
  {
    echo "# Turns a GGUF into safetensors, on the connected side. Made by python/tools/refresh_locks.sh."
    cat "$scratch/wide.txt"
  } >"$scratch/$name.txt"
  publish "$scratch/$name.txt" "$name.txt"
}

lock_gpu_exporter() {
  # uv makes its environment on a host; the bundle has that wheel already, in vLLM's locks.
  { echo nvitop-exporter; grep -o '^uv==[0-9.]*' "$locks/uv.txt"; } >"$scratch/gpu-exporter.in"
  compile "$scratch/wide.txt" "$scratch/gpu-exporter.in" --python-version 3.11 --only-binary :all: \
    --python-platform x86_64-manylinux_2_36
  {
    echo "# nvitop-exporter and what it needs: GPU metrics for Prometheus. Pure Python but psutil, whose wheel is of every"
    echo "# Python 3. Made by python/tools/refresh_locks.sh gpu-exporter."
    cat "$scratch/wide.txt"
  } >"$scratch/gpu-exporter.txt"
  publish "$scratch/gpu-exporter.txt" gpu-exporter.txt
}

command -v uv >/dev/null || die "uv is not on PATH; install it, then run this again"
case "${1:-}/$#" in
  controller/1) lock_controller; lock_dev ;;
  dev/1) lock_dev ;;
  edge-audit/1) lock_edge_audit ;;
  vllm/[123]) python "$root/python/tools/lock_vllm.py" "${@:2}" ;;
  convert/3) lock_convert "$2" "$3" ;;
  gpu-exporter/1) lock_gpu_exporter ;;
  *) die "say what to lock: controller | dev | edge-audit | vllm [VLLM [FLAVOUR]] | convert PYTHON TORCH | gpu-exporter" ;;
esac
