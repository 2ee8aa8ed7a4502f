"""The trainer: from a base, pictures and settings to a LoRA; it knows no command, recipe or record."""
