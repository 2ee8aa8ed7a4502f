"""Scores of what a LoRA draws, the verdict over its saves, the pages that show both. Nothing here samples or stores."""
