"""What a user's folder holds: links followed once, hidden files passed over, the rest named."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

# What systems leave behind beside their users' files; compared in lower case.
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}


@dataclass
class Folder:
    """A folder's files, searched in depth.

    Attributes:
        files: sorted, those behind links included.
        dangling: links to nowhere.
        unreadable: folders (and files) that cannot be looked into, with the reason.
        repeated: linked folders that were not entered, for they were met before or lead back.
    """

    files: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """Say what could not be looked into, a sentence a kind."""
        said = []
        if self.dangling:
            said.append(f"{named(self.dangling, 'link')} to nowhere (is the disk mounted?)")
        if self.unreadable:
            why = self.unreadable[0][1]
            places = named([path for path, _ in self.unreadable], "place")
            said.append(f"{places} cannot be looked into ({why})")
        if self.repeated:
            said.append(f"{named(self.repeated, 'linked folder')} met before, entered once")
        return said


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is a system's own: `.…`, `._…`, Thumbs.db and the like."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def visible(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are not hidden, sorted; for what `glob` finds."""
    return sorted(path for path in paths if not is_hidden(path.name))


def list_folder(root: Path) -> Folder:
    """List the files of a folder and of those below it.

    Linked folders are entered, each once: of several ways to a folder the one without links
    counts, then the first by name. So a circle ends, and no file is listed twice for a link.

    Args:
        root: the folder; itself it may be hidden or a link.
    """
    found = Folder()
    seen: set[tuple[int, int]] = set()
    folders, links = [root], []
    while folders or links:
        if not folders:  # the nearest link, when all that is reached without is done
            links.sort(key=lambda link: (len(link.parts), link))
            folders.append(links.pop(0))
        folder = folders.pop()
        try:
            identity = folder.stat()
            place = (identity.st_dev, identity.st_ino)
            if place in seen:
                found.repeated.append(folder)
                continue
            seen.add(place)
            entries = list(os.scandir(folder))
        except OSError as error:
            found.unreadable.append((folder, error.strerror or str(error)))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path = folder / entry.name
            try:
                if path.is_dir():
                    (links if entry.is_symlink() else folders).append(path)
                elif path.is_file():
                    found.files.append(path)
                elif entry.is_symlink() and not path.exists():
                    found.dangling.append(path)
            except OSError as error:  # a folder that may be listed but not entered; a lost server
                found.unreadable.append((path, error.strerror or str(error)))
    for paths in (found.files, found.dangling, found.unreadable, found.repeated):
        paths.sort()
    return found


def named(paths: list[Path], what: str) -> str:
    """Count paths and name the first: `3 links (a, b, …)`."""
    names = ", ".join(str(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")
    return f"{len(paths)} {what}{'s' if len(paths) > 1 else ''} ({names})"
