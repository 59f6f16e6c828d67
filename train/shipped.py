"""The encoders that come with the clone, without importing torch."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "encoders"
DEFAULT = "lemon-resnet18s"  # where a command is given none; demo/run.sh starts from it too


def find_shipped(name: str) -> Path | None:
    """Return the folder of an encoder that comes with the clone, or None."""
    folder = FOLDER / name
    return folder if (folder / "config.json").is_file() else None


def shipped_names() -> list[str]:
    """Return the names of those there are."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))
