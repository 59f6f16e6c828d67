"""Whether a slide's file is there, and if not, why not."""

from pathlib import Path


def check_present(path: Path) -> None:
    """Refuse a path that leads to nothing.

    Raises:
        FileNotFoundError: it is a link to nowhere, a download that did not end, or absent.
    """
    if path.exists():
        return
    if path.is_symlink():
        raise FileNotFoundError(
            f"{path} is a link to {path.readlink()}, and that is not there; is its disk mounted?"
        )
    if path.with_name(path.name + ".partial").exists():
        raise FileNotFoundError(
            f"{path} is still a .partial: its download did not end; run gdc-client again"
        )
    raise FileNotFoundError(f"there is no slide {path} (any more)")
