"""Shards at an address: which stores are spoken to, and copies that end."""
