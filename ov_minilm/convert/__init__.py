"""Convert a pinned checkpoint to an INT8 artefact; the loss of accuracy is measured and recorded in it.

Read source.py, tensors.py, onnx.py, graph.py, outliers.py, calibrate.py, scales.py, then build.py, which runs
them in order. Needs the `convert` extra: torch, transformers and nncf stay out of the runtime.
"""
