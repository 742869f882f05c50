"""Where a model comes from: folders, GGUF files, the hub, object stores; with an adapter merged in or without.

`reference` reads what a manifest writes, `listing` decides which files of a far place are taken, `fetching` asks and
downloads in a child, `kept` holds what was brought here, `sources` puts these together.
"""
