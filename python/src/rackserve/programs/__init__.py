"""Programs that run alone on the bare Python of a host or of a build: one file each, found by `_paths.program_file`.

None imports anything of this package; those for hosts use the standard library of Python 3.9 only.
"""
