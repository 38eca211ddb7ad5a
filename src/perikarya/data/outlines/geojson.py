"""GeoJSON as QuPath writes and reads it.

Looked up in QuPath's sources and documentation (GsonTools, PathObjectTypeAdapters, QuPathTypeAdapters, ROITypeAdapters;
issue 1293 for non-finite measurements). What changed between its versions:

=====================  =============================  ============================  ===================================
what                   0.2                            0.3                           0.4 to 0.6
=====================  =============================  ============================  ===================================
file                   array of features              array or FeatureCollection    FeatureCollection (array, one)
type of object         ``id``: PathDetectionObject    ``object_type``: detection    ``objectType``: detection
core of a microarray   ``id``: TMACoreObject          tma_core                      tmaCore
id                     none                           none                          UUID in ``id``
class                  name, colorRGB (packed)        name, colorRGB, parentClass   name or names, color [r, g, b(, a)]
measurements           list of {name, value}          list of {name, value}         {name: value}; NaN, from 0.5 "NaN"
nested objects         no                             no                            ``properties.childObjects``
=====================  =============================  ============================  ===================================

All of them write pixels of the full image from its upper left corner, with two decimals; a cell's nucleus beside its
geometry as ``nucleusGeometry``; ellipses as polygons; the plane of a stack as ``geometry.plane``. From 0.4 on, files
may be compressed, and QuPath asks what to do with ids that an image has already (pull request 1103): to see the classes
that this program gave, delete the old objects first.
"""

from __future__ import annotations

from perikarya.data.outlines.geojson_read import read_geojson as read_geojson
from perikarya.data.outlines.geojson_write import GeoCell as GeoCell
from perikarya.data.outlines.geojson_write import write_geojson as write_geojson
