"""`rackserve init`: writes a commented inventory for a new site."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from rackserve.cli import EXIT_OK
from rackserve.errors import InputError

if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("directory", metavar="DIR", help="a folder that is empty or does not exist")
    parser.set_defaults(handler=init)


def init(args: argparse.Namespace) -> int:
    """Run the command."""
    target = Path(args.directory).expanduser()
    written = write_site(target)
    for path in written:
        print(path)
    print(
        f"""
Next:
  1. Put your hosts and addresses into {target}/hosts.yml and {target}/group_vars/all/stack.yml.
  2. Choose the models in {target}/group_vars/vllm_hosts/vllm.yml.
  3. Read it back:       ansible-inventory -i {target} --graph
  4. Gather the bundle:  rackserve bundle key site
                         rackserve bundle build -i {target} -o bundle && rackserve bundle import -i {target} bundle
  5. See what would be:  rackserve plan -i {target}
  6. Do it:              rackserve apply -i {target}
  7. Get the verdict:    rackserve verify -i {target}"""
    )
    return EXIT_OK


def write_site(target: Path) -> list[Path]:
    """Copy the template of a site into an empty folder and return the files.

    Raises:
        InputError: the folder holds something, or is a file, or cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder that is empty or does not exist")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty; name a folder that is empty or does not exist")
    try:
        with resources.as_file(resources.files("rackserve") / "data" / "site") as template:
            # copyfile: the site's files are the operator's own, whatever the mode of the installed template
            shutil.copytree(template, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    except OSError as error:
        raise InputError(f"cannot write the site {target}: {error}") from error
    return sorted(path for path in target.rglob("*") if path.is_file())
