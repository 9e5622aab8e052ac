"""The offline front: a model in this process, through the same pipeline as the server."""
