"""The embedded default: a small procedural world whose every label is known exactly."""
