"""Sending an artifact in few bytes: where its files are cut, so that what two versions share is the same blocks.

`layout` says what a file's bytes are, `cutting` where its blocks begin.
"""
