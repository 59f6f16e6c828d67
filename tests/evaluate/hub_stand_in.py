"""A local stand-in of the Hugging Face hub's client: repositories are folders; nothing is sent."""

import hashlib
import inspect
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx2
import huggingface_hub
from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download


def refusal(kind: type, status: int = 404, text: str = "") -> Exception:
    """Return an error as the client raises it."""
    response = httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co"))
    return kind(text or f"{status} Client Error.", response=response)


class Hub:
    """Repositories below a folder: <owner>/<name>/<commit>/, and which of them is private."""

    def __init__(self, folder: Path):
        self.folder, self.private, self.asked = folder, {}, []
        self.refuse: Exception | None = None

    def check(self, function, *arguments, **named) -> None:
        """See that the real client would take these arguments."""
        inspect.signature(function).bind(*arguments, **named)
        self.asked.append(function.__name__)
        if self.refuse:
            raise self.refuse

    def commits(self, repository: str) -> list[Path]:
        return sorted((self.folder / repository).glob("[0-9]*"))

    def latest(self, repository: str, revision: str | None = None) -> Path:
        found = self.commits(repository)
        if not found:
            raise refusal(errors.RepositoryNotFoundError)
        named = [path for path in found if path.name[4:] == revision] if revision else found
        if not named:
            raise refusal(errors.RevisionNotFoundError)
        return named[-1]

    # What the client has

    def create_repo(self, repository, **named):
        self.check(HfApi.create_repo, self, repository, **named)
        self.private.setdefault(repository, named["private"])
        (self.folder / repository).mkdir(parents=True, exist_ok=named["exist_ok"])

    def file_exists(self, repository, name):
        self.check(HfApi.file_exists, self, repository, name)
        found = self.commits(repository)
        return bool(found) and (found[-1] / name).exists()

    def create_commit(self, repository, operations, **named):
        self.check(HfApi.create_commit, self, repository, operations, **named)
        before = self.commits(repository)
        name = hashlib.sha1(str(len(before)).encode()).hexdigest()
        folder = self.folder / repository / f"{len(before):03d}-{name}"
        shutil.copytree(before[-1], folder) if before else folder.mkdir()
        for operation in operations:
            with operation.as_file() as file:
                (folder / operation.path_in_repo).write_bytes(file.read())
        page = f"https://huggingface.co/{repository}/commit/{name}"
        return SimpleNamespace(commit_url=page)

    def hf_hub_download(self, repo_id, filename, **named):
        self.check(hf_hub_download, repo_id, filename, **named)
        path = self.cached(repo_id, named.get("revision")) / filename
        if not path.exists():
            raise refusal(errors.RemoteEntryNotFoundError)
        return str(path)

    def snapshot_download(self, repository, **named):
        self.check(snapshot_download, repository, **named)
        return str(self.cached(repository, named["revision"]))

    def cached(self, repository: str, revision: str | None) -> Path:
        """Return a commit's folder under its name alone, as in the client's cache."""
        folder = self.latest(repository, revision)
        link = folder.parent / "snapshots" / folder.name[4:]
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.symlink_to(folder)
        return link


def install(patch, folder: Path) -> Hub:
    """Put the stand-in in the client's place, for timm as well."""
    hub = Hub(folder)
    patch.setattr(huggingface_hub, "HfApi", lambda: hub)
    patch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    patch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    patch.setattr("timm.models._hub.hf_hub_download", hub.hf_hub_download)
    return hub
