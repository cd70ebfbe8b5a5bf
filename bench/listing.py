"""What a tree holds: folders, links, files with their bytes and whether they may be run. Made here by
Python and on an instance by find and sha256sum, so that two programs have to agree."""

import hashlib
import os
from pathlib import Path

from problem import Broken

Listing = dict[str, tuple[str, ...]]

SCRIPT = r"""cd "$1" && find . -mindepth 1 -printf '%y\t%m\t%P\t%l\n' && echo && find . -type f -exec sha256sum {} +"""
"""Its one argument is the folder. Names hold neither tabs nor line ends: the corpus has no such."""


def of_folder(root: Path) -> Listing:
    found: Listing = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = Path(folder, name)
            inside = str(path.relative_to(root))
            if path.is_symlink():
                found[inside] = ("l", os.readlink(path))
            elif path.is_dir():
                found[inside] = ("d",)
            else:
                may_run = "x" if path.stat().st_mode & 0o100 else "-"
                found[inside] = ("f", may_run, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def parsed(output: str) -> Listing:
    """What the script printed."""
    shape, _, sums = output.partition("\n\n")
    hashes = {}
    for line in sums.splitlines():
        digest, _, path = line.partition("  ./")
        hashes[path] = digest
    found: Listing = {}
    for line in shape.splitlines():
        kind, mode, path, target = line.split("\t")
        if kind == "f":
            found[path] = ("f", "x" if int(mode, 8) & 0o100 else "-", hashes.get(path, "no hash"))
        else:
            found[path] = (kind, target) if kind == "l" else (kind,)
    return found


def must_equal(expected: Listing, found: Listing, where: str) -> None:
    if expected == found:
        return
    absent, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = sorted(path for path in expected.keys() & found.keys() if expected[path] != found[path])
    kinds = (("absent", absent), ("extra", extra), ("different", other))
    said = [f"{len(paths)} {kind}, such as {paths[0]}" for kind, paths in kinds if paths]
    raise Broken(f"the tree on {where} is not the one pushed: {'; '.join(said)}")
