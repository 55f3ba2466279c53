"""Jobs from files to files: rows are read, encoded and written shard by shard; an interrupted job resumes.

`RayEmbedder` is for Ray Data pipelines; everything else is used through `ov-minilm encode`.
"""

from ov_minilm.bulk.ray import RayEmbedder, Shipped

__all__ = ["RayEmbedder", "Shipped"]
