"""Files to files: rows are read, encoded and written shard by shard, and a killed job goes on.

`RayEmbedder` is for Ray Data pipelines; `ov-minilm encode` is the door to the rest.
"""

from ov_minilm.bulk.ray import RayEmbedder, Shipped

__all__ = ["RayEmbedder", "Shipped"]
