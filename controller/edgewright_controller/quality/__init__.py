"""Whether a compiled model still behaves like its source: what is measured, and what it may cost.

No single check sees every fault, so there are four, each with a file of its own; the measuring is done by children
under the toolchains' interpreters, the judging here, on plain numbers.
"""
