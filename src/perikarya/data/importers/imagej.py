"""ImageJ: whole images with the selections drawn on them, saved by the ROI manager beside each."""

from __future__ import annotations

from perikarya.data.importers.beside import importer_of
from perikarya.data.outlines.roi import read_rois

# classes come from names, groups or colours by the class map, and from the property ``class`` where an ROI has it
IMAGEJ = importer_of(
    "imagej",
    suffix=".roi",
    read=read_rois,
    expects="images x.tif and ImageJ's ROIs x.zip beside each (classes: --class-map; subjects: --metadata)",
)
