"""Where a model comes from: folders, GGUF files, the hub, object stores; with an adapter merged in or without.

`reference` reads what a manifest writes, `listing` decides which files of a far place are taken, `fetching` asks and
downloads in a child, `making` dequantises and merges, `kept` holds what came of it, `sources` puts these together.
"""
