"""Jobs that encode files: rows are read, encoded and written shard by shard. Interrupted jobs resume.

`RayEmbedder` is for Ray Data pipelines; everything else is used through `ov-minilm encode`.
"""

from ov_minilm.bulk.ray import RayEmbedder, Shipped

__all__ = ["RayEmbedder", "Shipped"]
