"""Programs that run alone on the bare Python of a host or of a build: one file each, found by `_paths.program_file`.

A package here, such as `verify_bundle`, becomes one file when it is placed: a zipapp, `verify_bundle.pyz`.

None imports anything of this package; those for hosts use the standard library of Python 3.9 only.
"""
