"""Measurements that a sceptic can repeat: INT8 beside its own FP32, beside others. Needs the extra `bench`.

A benchmark is a function that yields rows (`row`); contenders are processes (`contender`, `worker`) that take
turns (`race`); `render` and `pictures` show rows.
"""
