"""Files to files: rows are read, encoded and written shard by shard, and a killed job goes on."""
