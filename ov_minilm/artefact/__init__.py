"""What a model folder holds and promises: plain data, read strictly."""
