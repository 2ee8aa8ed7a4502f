"""What people ask of the factory: one file, one command, found by listing."""
