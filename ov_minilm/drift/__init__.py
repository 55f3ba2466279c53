"""Drift, the distance of quantized vectors from FP32: texts to measure on, metrics, the comparison."""
