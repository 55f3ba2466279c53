"""Texts become vectors: tokens, packing, scheduling and OpenVINO."""
