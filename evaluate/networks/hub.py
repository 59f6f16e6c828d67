"""Encoders of the Hugging Face hub: opened by their repository's name, and put there."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from evaluate.networks.hub_folder import is_hub_folder, open_hub_folder
from evaluate.networks.imagenet import open_timm
from train.encoder import OWN, WEIGHTS, weight_files

CARD = "README.md"
CONFIG = "config.json"


def open_hub(place: str) -> tuple[nn.Module, dict, dict]:
    """Load an encoder that `push` put on the hub, or whatever else timm loads from there.

    The first takes the middle of a crop at its own scale, as the run it was; of the others timm
    says the input, to which the whole crop is enlarged.

    Args:
        place: owner/name, or owner/name@revision.

    Raises:
        FileNotFoundError: the hub has no such repository, or is not reached, or refuses.
        ValueError: no repository is named so, or the files do not fit each other.
    """
    import huggingface_hub

    repository, _, revision = place.partition("@")
    check_name(repository)
    with _said(repository, "could not be fetched; download it elsewhere and give its folder"):
        path = Path(huggingface_hub.hf_hub_download(repository, CONFIG, revision=revision or None))
        try:
            own = OWN in json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"hf-hub:{place}: its {CONFIG} is no JSON: {error}") from error
        if own:  # both files of one commit: the cache's folder bears its name
            commit = path.parent.name if re.fullmatch(r"[0-9a-f]{40}", path.parent.name) else None
            wanted = [CONFIG, "*.safetensors", WEIGHTS[1]]
            folder = huggingface_hub.snapshot_download(
                repository, revision=commit or revision or None, allow_patterns=wanted
            )
            return open_hub_folder(Path(folder))
    return open_timm(f"hf-hub:{place}", None)


def check_name(repository: str) -> None:
    """Raise ValueError where a repository's name is not the hub's owner/name."""
    part = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
    if not re.fullmatch(f"{part}/{part}", repository) or re.search(r"\.\.|--", repository):
        raise ValueError(
            f"{repository!r} names no repository of the hub: owner/name, of letters, digits, and "
            "single _, . or - within"
        )


def push_folder(
    folder: Path, repository: str, card: str, private: bool = False, overwrite: bool = False
) -> tuple[str, bool]:
    """Put an encoder's folder on the hub in one commit, with a model card.

    A card that is there already may have been edited, so it stays unless `overwrite`.

    Args:
        folder: in timm's hub layout, uploaded as it is.
        repository: owner/name; made if absent.
        private: where it is made: for its owner only.
        overwrite: replace the card, too.

    Returns:
        The commit's page, and whether the card was written.

    Raises:
        FileNotFoundError: no encoder there.
        ValueError: the name is none, or the folder is of an earlier layout.
        OSError: the hub is not reached, or refuses.
    """
    import huggingface_hub
    from huggingface_hub import CommitOperationAdd

    check_name(repository)
    files = files_of(folder)
    client = huggingface_hub.HfApi()
    with _said(repository, "could not be written"):
        client.create_repo(repository, private=private, exist_ok=True)
        written = overwrite or not client.file_exists(repository, CARD)
        parts: list[Any] = [CommitOperationAdd(path.name, str(path)) for path in files]
        parts += [CommitOperationAdd(CARD, card.encode())] if written else []
        done = client.create_commit(repository, parts, commit_message="Encoder and model card")
    return str(done.commit_url), written


def files_of(folder: Path) -> list[Path]:
    """Return the files that are uploaded: the config and the weights, in one file or in several.

    Raises:
        FileNotFoundError: no weights there, or a part of them is absent.
        ValueError: the folder is not in timm's hub layout.
    """
    if not is_hub_folder(folder):
        raise ValueError(
            f"{folder / CONFIG} is not in timm's hub layout, which the hub's readers expect, but "
            "of an earlier format; the run's training command, given again, writes it anew"
        )
    files = weight_files(folder)
    whole = files[0].name == WEIGHTS[0]
    return [folder / CONFIG, *([] if whole else [folder / WEIGHTS[1]]), *files]


@contextmanager
def _said(repository: str, what: str) -> Iterator[None]:
    """Turn the errors of the hub's client into a sentence with the cure."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repository}"
    # Of the client's HTTP library, which is another one in each of its major versions.
    network = getattr(errors, "HTTPError", ConnectionError)
    try:
        yield
    except errors.GatedRepoError as error:
        raise FileNotFoundError(
            f"{page} gives its weights to those who accept its terms: do so there and run "
            "`hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{page} has no such revision; its page lists them") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{page} is not there, or is private: look at its spelling, and `hf auth login` as one "
            "who may read it"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise OSError(
            f"{page} {what}: you are not logged in; run `hf auth login` with a token that writes"
        ) from error
    except (network, errors.HfHubHTTPError, ConnectionError, FileNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        cure = "; run `hf auth login` with a token that may do this" if status in (401, 403) else ""
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(f"{page} {what} ({first}){cure}") from error
