"""Jobs: the queue, the worker that makes their pictures, and the history of what was made."""
