#!/bin/sh
# The detector's tests where only `ssd` can be installed, with the oldest torch that it supports and with the locked one.
# $1: where its environment goes.
set -eu
for pair in "torch==2.11.0 torchvision==0.26.0" "torch torchvision"; do
    echo "the detector alone, with $pair"
    rm -rf "$1"
    "$PYTHON" -m venv "$1"
    grep -E '^(numpy|safetensors|pytest|hypothesis)==' requirements.lock > "$1/requirements.txt"
    for package in $pair; do
        grep -E "^$package==" requirements.lock || echo "$package"
    done >> "$1/requirements.txt"
    "$UV" pip install -q --python "$1/bin/python" -r "$1/requirements.txt"
    # The project's pytest settings name a plugin that is not here.
    "$1/bin/python" -m pytest -q -c /dev/null --rootdir . --import-mode=importlib --confcutdir tests/ssd -W error \
        -p no:cacheprovider -rs tests/ssd
done
