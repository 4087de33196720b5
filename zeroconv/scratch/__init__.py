"""The embedded bases from nothing: data, networks, losses, one training loop, and figures of what
came out.
"""
