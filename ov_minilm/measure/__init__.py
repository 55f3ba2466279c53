"""Measurements that a sceptic can repeat: INT8 beside its own FP32, and others. Needs the extra `bench`."""
