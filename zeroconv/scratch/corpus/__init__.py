"""Shards of pictures or of their moments, and batches of them."""
