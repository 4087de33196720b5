"""What a run needs of its pictures, computed once and kept in shards."""
