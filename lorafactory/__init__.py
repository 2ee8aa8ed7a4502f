"""From a folder of pictures to a LoRA you would publish."""

import os

__version__ = "0.1.0"

# Offline is the default: said before any library that knows a hub is imported.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
for _variable in (*_OFFLINE, "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
