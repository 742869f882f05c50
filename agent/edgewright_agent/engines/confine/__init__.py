"""What stands between the agent and an engine's child on Linux: confined first, then replaced by the child.

`launch.py` is started by file path instead of the child. The modules here need the standard library only, so that it
begins as quickly as an interpreter does. Nothing here imports another part of the agent.
"""
