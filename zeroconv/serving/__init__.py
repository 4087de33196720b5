"""The HTTP server of `zeroconv studio` and `zeroconv serve`: one worker that owns the models, a
queue of jobs before it, a history of pictures behind it.
"""
