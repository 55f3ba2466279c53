"""Converts a checkpoint to an INT8 artefact, and records the measured loss of accuracy in it.

Read source.py, tensors.py, onnx.py, graph.py, outliers.py, calibrate.py, scales.py, then build.py, which runs
them in order. Needs the `convert` extra with torch, transformers and nncf, which the runtime does not need.
"""
