"""From a folder of pictures to a LoRA you would publish."""

__version__ = "0.1.0"
