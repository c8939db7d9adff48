"""What all tests share: quiet services, and hypothesis profiles that do not depend on the machine's speed."""

from __future__ import annotations

import os

from oubli.registry.settings import QUIET

# Before anything imports Prefect or MLflow, which read these once.
os.environ.update(QUIET)
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "OUBLI_STORE", "OUBLI_HOME", "OUBLI_FACTORY_PREFIXES"):
    # The developer's own servers and stores are none of the tests' business.
    os.environ.pop(name, None)
