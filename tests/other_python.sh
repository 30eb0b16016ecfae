#!/bin/sh
# The tests on the other supported Python, against the wheel in place of the checkout. $1: where its environment goes.
set -eu
ours=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
other=$([ "$ours" = 3.11 ] && echo 3.12 || echo 3.11)
found=""
for candidate in "python$other" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$other"*/bin/python; do
    if "$candidate" -c 'import venv' 2>/dev/null; then found=$candidate; fi
done
if [ -z "$found" ]; then
    echo "SKIPPED: the tests on Python $other, because there is none here"
    exit 0
fi
echo "building the wheel and its environment for Python $other"
rm -rf "$1"
"$found" -m venv "$1"
"$UV" build -q --wheel --out-dir "$1/dist" .
"$UV" pip install -q --python "$1/bin/python" -r requirements.lock
"$UV" pip install -q --python "$1/bin/python" --no-deps "$1"/dist/*.whl
# Killed processes and full disks are the operating system's, what a network learns is PyTorch's: `make test` has them.
"$1/bin/pytest" -n 2 --dist loadfile --ignore=tests/system/test_faults.py \
    --ignore=tests/system/test_detect_faults.py --ignore=tests/system/test_detector.py
