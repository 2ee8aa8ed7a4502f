"""The daemon: what is dropped into the inbox becomes a LoRA, or a sentence that says why not."""
