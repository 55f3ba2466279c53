"""Jobs that encode files: rows are read, encoded and written shard by shard. Interrupted jobs resume.

`RayEmbedder` is for Ray Data pipelines; the rest of this folder is used through `ov-minilm encode`.
"""

from ov_minilm.bulk.ray import ArtefactFiles, RayEmbedder

__all__ = ["ArtefactFiles", "RayEmbedder"]
