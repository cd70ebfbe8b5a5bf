"""A tree to push, the same on every machine: made-up source text, in size and shape like the source
of a compiler with its library."""

import os
import random
import string
from pathlib import Path

FILES = 12_000
FOLDERS = 1_250
BYTES = 114_000_000
LINKS = 24
MEDIAN, SPREAD = 3_300, 1.45
"""Of a file's size before all are scaled to BYTES: a log-normal curve, few large files among many small."""
SEED = 20261123
MODIFIED = 1_700_000_000
"""Seconds; long past, so that no tool has to distrust a file for being new."""


def _lines(rng: random.Random) -> tuple[list[str], list[float]]:
    """Lines that files are made of, and how often each comes: enough of them that files share none
    but short pieces, few enough that they compress as source does (four to five times)."""
    words = "if for func return const struct err nil len size node next self value index table".split()
    words += ["".join(rng.choices(string.ascii_lowercase, k=rng.randrange(3, 11))) for _ in range(3000)]
    marks = ["=", "==", "(", ")", "{", "}", ";", ",", "+", "->", "//", "[0]", "&&"]
    lines = []
    for _ in range(24_000):
        parts = []
        for _ in range(rng.randrange(2, 7)):
            parts += [words[int(len(words) * rng.random() ** 3)], rng.choice(marks)]
        lines.append("\t" * rng.randrange(4) + " ".join(parts) + "\n")
    weights = [1.0 / (rank + 10) ** 1.1 for rank in range(len(lines))]
    total, cumulated = 0.0, []
    for weight in weights:
        total += weight
        cumulated.append(total)
    return lines, cumulated


def _folders(rng: random.Random, root: Path) -> list[Path]:
    folders = [root]
    root.mkdir()
    while len(folders) < FOLDERS:
        # Mostly below a recent one, so that some paths get deep.
        above = rng.choice(folders[-40:] if rng.random() < 0.5 else folders[:60])
        if len(above.relative_to(root).parts) < 9:
            folder = above / f"pkg{len(folders)}"
            folder.mkdir()
            folders.append(folder)
    return folders


def make(root: Path) -> Path:
    rng = random.Random(SEED)
    lines, weights = _lines(rng)
    mean_line = 38
    folders = _folders(rng, root)
    sizes = [rng.lognormvariate(0, SPREAD) * MEDIAN for _ in range(FILES)]
    scale = BYTES / sum(sizes)
    for number, wanted in enumerate(sizes):
        size = int(wanted * scale)
        text = f"// {number} {rng.getrandbits(64):016x}\n"
        while len(text) < size:
            more = rng.choices(lines, cum_weights=weights, k=(size - len(text)) // mean_line + 1)
            text += "".join(more)
        path = rng.choice(folders) / f"f{number}.{rng.choice(('c', 'h', 'go', 'rs', 'txt'))}"
        path.write_text(text[: max(size, 1)])
        path.chmod(0o755 if number % 100 == 0 else 0o644)
        if number % (FILES // LINKS) == 0:
            path.with_name(f"link{number}").symlink_to(path.name)
        os.utime(path, (MODIFIED, MODIFIED + number))
    return root


def files(root: Path) -> list[Path]:
    found = []
    for folder, _, names in os.walk(root):
        paths = (Path(folder, name) for name in names)
        found += [path for path in paths if not path.is_symlink()]
    return sorted(found)


def edit(paths: list[Path], count: int, salt: int) -> None:
    """Adds a line to some of the files, others for another salt."""
    for path in random.Random(f"edit {salt}").sample(paths, count):
        with path.open("a") as file:
            file.write(f"// edit {salt}\n")


def touch(paths: list[Path], salt: int) -> None:
    """Another time of modification for every file, the bytes as they were: a fresh checkout."""
    moment = MODIFIED + 1_000_000 + 100_000 * salt
    for number, path in enumerate(paths):
        os.utime(path, (moment, moment + number % 50_000))
