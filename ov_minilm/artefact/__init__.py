"""The contents of a model folder, as plain values that are checked when read."""
