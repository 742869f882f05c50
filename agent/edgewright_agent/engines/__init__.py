"""Engines: which there are, how one runs as a child process, and how the serving one is kept alive."""
