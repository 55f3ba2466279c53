"""Benchmarks that a sceptic can rerun: INT8 beside its own FP32 and beside others. Needs the extra `bench`.

Every contender is a process of its own that speaks the protocol of worker.py, so that one cannot warm, slow
or hide the memory of another; their turns are interleaved by measure.py.
"""
