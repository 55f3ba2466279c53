"""Converts a checkpoint to an INT8 artefact, and records the measured loss of accuracy in it.

Read source.py, tensors.py, onnx.py, graph.py, outliers.py, calibrate.py, scales.py, then build.py, which runs
them in order. Conversion needs the extra `convert` with torch, transformers and nncf; encoding does not.
"""
