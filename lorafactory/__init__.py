"""From a folder of pictures to a LoRA you would publish."""

import os

__version__ = "0.1.0"

# Offline is the default: said before any library that knows a hub is imported.
for _variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_PROGRESS_BARS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
