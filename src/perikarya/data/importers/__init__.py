"""Sources of cells. An importer is one file and one line in the table below."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

from perikarya.data.importers.base import Importer, ImportOptions
from perikarya.data.importers.coco import COCO
from perikarya.data.importers.folders import FOLDERS
from perikarya.data.importers.geojson import GEOJSON
from perikarya.data.importers.imagej import IMAGEJ
from perikarya.data.importers.labelmap import LABELMAP
from perikarya.data.importers.scale import check_scale, check_window
from perikarya.data.importers.write import write_study
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError
from perikarya.registry import Registry
from perikarya.schema import DEVELOPMENT, EXTERNAL

_MOST_COUNTED = 2000  # files looked at to say what a folder holds

IMPORTERS: Registry[Importer] = Registry("importer")
IMPORTERS.add("folders", FOLDERS)
IMPORTERS.add("labels", LABELMAP)
IMPORTERS.add("geojson", GEOJSON)
IMPORTERS.add("imagej", IMAGEJ)
IMPORTERS.add("coco", COCO)


def import_study(source: Path, out: Path, *, options: ImportOptions = ImportOptions()) -> OpenStudy:  # noqa: B008
    """Make a study from annotated images.

    Parameters
    ----------
    source
        The folder of the development set; ``options.external`` is that of the external set, in the same layout.
    out
        The study folder to be made; it appears whole or not at all.

    Raises
    ------
    ImportRefusedError
        If files cannot become cells; all are listed with their reasons.
    DataError
        If the source is not there or has no known layout, or ``out`` exists.
    ConfigError
        If an option does not fit.
    """
    check_scale(options.um_per_px)
    if options.window is not None:
        check_window(options.window)
    _check_places(source, out, options.external)
    layout = options.layout if options.layout != "auto" else recognise(source)
    importer = IMPORTERS.get(layout)
    scans = [importer.scan(source, DEVELOPMENT, options.metadata, options)]
    if options.external is not None:
        scans.append(importer.scan(options.external, EXTERNAL, options.external_metadata, options))
    return write_study(out, scans, layout=layout, options=options)


def recognise(source: Path) -> str:
    """Return the name of the importer whose layout a source has; raise ``DataError`` when none or several do."""
    found = [name for name, importer in IMPORTERS.items() if importer.recognises(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source} fits several layouts: {', '.join(found)}.\n"
            "Cells would be imported from one of them only. Fix: say which one is meant with --layout."
        )
    expected = "\n".join(f"  {name}: {importer.expects}" for name, importer in IMPORTERS.items())
    raise DataError(
        f"{source} has no layout that is known; it {_content(source)}. Layouts:\n{expected}\n"
        "Fix: arrange the folder so, or name one with --layout to hear what it lacks."
    )


def _content(source: Path) -> str:
    """Say in a few words what a source holds."""
    if not source.is_dir():
        return f"is a single {source.suffix or 'nameless'} file"
    files = (path for path in islice(source.rglob("*"), _MOST_COUNTED) if path.is_file())
    kinds = Counter(path.suffix.lower() or "nameless" for path in files)
    return "holds " + (", ".join(f"{n} {kind}" for kind, n in kinds.most_common(4)) + " files" if kinds else "no files")


def _check_places(source: Path, out: Path, external: Path | None) -> None:
    for place in (source, external):
        if place is not None and not place.exists():
            raise DataError(f"There is nothing at {place}.\nFix: correct the path of the images.")
    for place in (source, external):
        if place is not None and out.resolve().is_relative_to(place.resolve()):
            raise DataError(f"{out} lies inside its own source {place}.\nFix: choose an --out outside of it.")
    if external is not None and external.resolve() == source.resolve():
        raise DataError(f"{source} is named as development and as external set; each cell belongs to one of them.")
