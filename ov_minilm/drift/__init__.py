"""Drift is the distance of quantized vectors from FP32: evaluation texts, metrics, and the comparison."""
