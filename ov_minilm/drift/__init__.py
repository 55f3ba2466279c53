"""Measures drift, the distance of quantized vectors from FP32 vectors: texts, metrics, comparison."""
