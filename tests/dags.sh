#!/bin/sh
# The tests of the DAGs, in Airflow's own environment, $1. FACADE: the program that they call.
set -eu
grep -E '^(pytest|pytest-timeout|pytest-xdist)==' requirements.lock > "$1/tests.txt"
"$UV" pip install -q --python "$1/bin/python" -r "$1/tests.txt"
# Airflow warns of itself, so that warnings are no errors here; the project's own settings of pytest say they are.
"$1/bin/python" -m pytest -q -c /dev/null --rootdir . --import-mode=importlib --confcutdir tests/dags \
    -p no:cacheprovider -rs -n 2 --dist loadfile --timeout 600 tests/dags
