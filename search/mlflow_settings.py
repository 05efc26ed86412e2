"""What MLflow is told before it is imported; a value that the user set stands."""

import os

_DEFAULTS = {
    # A dead server is found out in seconds, and asked again later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Else a model would take over what uv finds in the current folder, which has nothing to do with it.
    "MLFLOW_UV_AUTO_DETECT": "false",
    # A hospital's machine tells nobody what it does.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
