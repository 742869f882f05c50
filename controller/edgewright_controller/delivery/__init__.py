"""Sending an artifact in few bytes: where its files are cut, what of an older artifact each block is compared with,
and the packs in which what differs is kept.

`layout` and `cutting` say where blocks begin. `likeness` finds what an older artifact has in a block's place, `pairs`
which artifacts are worth comparing; both are pure. `packs` is the form on disk, `making` fills one, `queue` runs that
beside everything else, and `forms` has what a request is answered with.
"""
