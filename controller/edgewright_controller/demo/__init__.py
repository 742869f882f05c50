"""The demo: a fleet of three devices on this machine, for a newcomer to watch.

`model` prepares the checkpoint, `children`, `fleet` and `traffic` start and use what an operator would, `sabotage`
makes the bad releases, `screen` shows, and `story` tells it and checks each claim.
"""
