"""QuPath: whole images with the objects drawn or detected on them, exported as GeoJSON beside each."""

from __future__ import annotations

from perikarya.data.importers.beside import importer_of
from perikarya.data.outlines.geojson import read_geojson

# classes come from the objects' classifications (see ``ClassMap``), regions from annotations that hold cells
GEOJSON = importer_of(
    "geojson",
    suffix=".geojson",
    read=read_geojson,
    expects="images x.tif and QuPath's objects x.geojson beside each (regions, subjects: --metadata, --name-pattern)",
)
