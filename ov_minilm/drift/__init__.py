"""How far quantized vectors are from FP32: texts to measure on, metrics, and the comparison."""
