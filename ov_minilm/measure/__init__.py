"""Benchmarks of this machine: INT8 against FP32 and other libraries. Needs the extra `bench`."""
