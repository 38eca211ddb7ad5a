"""An exported model in its folder: written whole or not at all, opened only when every file is what it was.

Nothing heavy is imported here: no torch, pandas or scipy.
"""

from __future__ import annotations

import hashlib
import mmap
import stat
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from perikarya.errors import DataError
from perikarya.predict.manifest import MODEL_FILE, ModelManifest, read_manifest
from perikarya.runs import file_sha256 as file_sha256
from perikarya.runs import new_folder

MAX_MANIFEST_BYTES = 16 * 2**20
MAX_FILE_BYTES = 8 * 2**30  # the largest network of the zoo has 1.2 GB


@dataclass(frozen=True)
class ModelFolder:
    """An exported model whose files have been checked; ``sha256`` is of its manifest, which names all other hashes."""

    root: Path
    manifest: ModelManifest
    sha256: str

    def network_path(self, i: int) -> Path:
        """Return the file of the network at position ``i`` of the manifest."""
        return self.root / self.manifest.networks[i].file


def is_model_folder(path: Path) -> bool:
    """Tell whether a path is a folder with an exported model (a run folder is none)."""
    return (path / MODEL_FILE).is_file()


def open_model(path: Path) -> ModelFolder:
    """Open an exported model and compare every file with its hash.

    Parameters
    ----------
    path
        The folder, or its ``model.json``.

    Raises
    ------
    DataError
        If the manifest is missing, damaged or of another version, or a file is missing, changed, too large or outside
        of the folder.
    """
    root = path.parent if path.name == MODEL_FILE else path
    content = _manifest_bytes(root)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{root / MODEL_FILE} is not a text file ({error}).\nFix: export the model again.") from None
    manifest = read_manifest(text, where=str(root / MODEL_FILE))
    for network in manifest.networks:
        for name, sha256 in {network.file: network.sha256, **network.extra_files}.items():
            _check_file(root, name, sha256)
        if network.file.endswith(".onnx"):
            _refuse_weights_elsewhere(root / network.file)
    return ModelFolder(root, manifest, hashlib.sha256(content).hexdigest())


def new_model_folder(out: Path, *, overwrite: bool = False) -> AbstractContextManager[Path]:
    """Give an empty folder that takes the place of ``out`` when the block ends well; see ``runs.new_folder``."""
    return new_folder(
        out,
        is_ours=is_model_folder,
        what="an exported model",
        why="predictions refer to it by its hash",
        overwrite=overwrite,
    )


def _manifest_bytes(root: Path) -> bytes:
    path = root / MODEL_FILE
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_MANIFEST_BYTES // 2**20} MiB; it is not the description of a model.\n"
                "Fix: export the model again."
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{root} is not an exported model: it has no {MODEL_FILE}.\n"
            "Fix: make one with 'perikarya export RUN --model NAME --out FOLDER', or name its folder."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.\nFix: check its rights.") from None


def _check_file(root: Path, name: str, sha256: str) -> None:
    """Raise ``DataError`` unless a file is inside the folder, a plain file, not too large, and has that hash."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path} leads out of the model's folder.\n"
            "A model could read files it has no business with. Fix: replace the link by a copy of the file."
        )
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{path} is not a file of at most {MAX_FILE_BYTES // 2**30} GiB, so it is no network of a model.\n"
                "Fix: export the model again."
            )
        same = file_sha256(path) == sha256
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing; {MODEL_FILE} names it.\nFix: copy the whole folder, or export again."
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.\nFix: check its rights.") from None
    if not same:
        raise DataError(
            f"{path} is not the file the model was exported with: its SHA-256 differs from {MODEL_FILE}.\n"
            "A damaged or exchanged network would give other answers than its report. "
            "Fix: copy the folder again, or export the model again."
        )


def _refuse_weights_elsewhere(path: Path) -> None:
    """Raise ``DataError`` where an ONNX file takes tensors from other files, which is said by the key ``location``.

    Ours never do. Newer versions of ONNX Runtime refuse paths that leave the folder; older ones read any file.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"location") >= 0:
            raise DataError(
                f"{path} names other files that hold its weights; those are not checked, and could be any file of "
                "this machine.\nFix: save the graph as one file, or export the model again."
            )
