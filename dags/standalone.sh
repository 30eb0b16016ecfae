#!/bin/sh
# Start Airflow on this machine alone, with the DAGs of this folder. $1: where its programs are; AIRFLOW_HOME: its database
# and logs; FACADE, RUN: the program and the file of `facade run`. PORT: the page's, default 8080.
set -eu
dags=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$AIRFLOW_HOME/bin"
# `airflow standalone` calls `airflow` from the PATH. Its scheduler and its triggerer would serve logs on all addresses;
# the page reads them from the disk.
cat > "$AIRFLOW_HOME/bin/airflow" <<END
#!/bin/sh
case "\${1:-}" in scheduler | triggerer) set -- "\$@" --skip-serve-logs ;; esac
exec "$1/airflow" "\$@"
END
chmod +x "$AIRFLOW_HOME/bin/airflow"
export PATH="$AIRFLOW_HOME/bin:$1:$PATH"
export AIRFLOW__CORE__DAGS_FOLDER="$dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT="${PORT:-8080}" AIRFLOW__API__WORKERS=1
export AIRFLOW__API__BASE_URL="http://127.0.0.1:${PORT:-8080}"
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:${PORT:-8080}/execution/"
export AIRFLOW_VAR_FACADE="$FACADE" AIRFLOW_VAR_FACADE_RUN="$RUN"
export MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-sqlite:///$(pwd)/mlflow.db}"
airflow db migrate > "$AIRFLOW_HOME/migrate.log" 2>&1 || { cat "$AIRFLOW_HOME/migrate.log"; exit 1; }
airflow pools get gpu > /dev/null 2>&1 || airflow pools set gpu 1 "A slot a machine that computes" > /dev/null
echo "Airflow will be at http://127.0.0.1:${PORT:-8080}; the password of admin is in"
echo "$AIRFLOW_HOME/simple_auth_manager_passwords.json.generated"
exec airflow standalone
