// Draws one selection of every kind on a field of 120 x 90 px and saves them as FOLDER/imagej_selections.zip.
// FOLDER/imagej_selections.png holds, one below the other, the mask that ImageJ makes of each that encloses an area.
// The first is saved as a file of its own, too. Argument: FOLDER, with a slash behind.
folder = getArgument();
n_areas = 24;
setBatchMode(true);
newImage("masks", "8-bit black", 120, 90 * n_areas, 1);
newImage("field", "8-bit black", 120, 90, 1);
tile = 0;

makeOval(40, 20, 31, 24);
Roi.setName("oval");
saveAs("selection", folder + "imagej_oval.roi");
keep("oval");
makeOval(40.5, 20.5, 31.5, 24.2); keep("oval between pixels");
makeOval(3, 3, 1, 1); keep("oval of one pixel");
makeRectangle(5, 7, 20, 13); keep("rectangle");
makeRectangle(5.4, 7.6, 20.3, 13.2); keep("rectangle between pixels");
makeRectangle(30, 7, 40, 30, 15); keep("rounded rectangle");
makeRotatedRectangle(20, 30, 60, 55, 18); keep("rotated rectangle");
makeRectangle(-6, -4, 20, 20); keep("over the edge");
makeEllipse(30, 20, 80, 60, 0.5); keep("ellipse");
makePolygon(10, 10, 60, 15, 70, 60, 25, 70); keep("polygon");
makeSelection("polygon", newArray(10.2, 60.1, 40.3, 71.7, 25.25), newArray(10.7, 15.9, 30.2, 60.4, 70.75)); keep("polygon between pixels");
makeSelection("freehand", newArray(10.3, 60.1, 71.7, 41.6, 20.8), newArray(9.7, 16.9, 61.4, 43.2, 55.1)); keep("freehand between pixels");
makeSelection("traced", newArray(20, 30, 30, 35, 35, 20), newArray(20, 20, 25, 25, 40, 40)); keep("traced");
makeRectangle(20, 20, 50, 40); setKeyDown("alt"); makeRectangle(30, 30, 10, 10); keep("hole");
makeRectangle(20, 20, 30, 30); setKeyDown("shift"); makeOval(60, 40, 31, 31); keep("two parts");
makeOval(20, 20, 50, 50); setKeyDown("alt"); makeOval(35, 35, 15, 18); keep("ring");
makePolygon(10, 10, 60, 15, 70, 60, 25, 70); run("Interpolate", "interval=1.5 smooth"); keep("interpolated");
makeOval(10, 10, 60, 40); run("Rotate...", "  angle=15"); keep("rotated oval");
makePolygon(10, 10, 60, 15, 70, 60, 25, 70); run("Fit Spline"); keep("spline");
// boundaries that pass through the very centres of pixels
makePolygon(10, 10, 50, 10, 50, 50); keep("tie upper right");
makePolygon(10, 10, 50, 50, 10, 50); keep("tie lower left");
makePolygon(10, 10, 70, 70, 10, 70, 70, 10); keep("tie bow");
makeSelection("freehand", newArray(20, 30, 44, 40, 33, 18), newArray(20, 14, 25, 44, 50, 41)); keep("tie freehand");
makeSelection("polygon", newArray(10.5, 20.5, 20.5, 10.5), newArray(10.5, 10.5, 20.5, 20.5)); keep("tie half");

makeLine(10, 10, 50, 50); add("line");
makePoint(10, 10); add("point");
makeSelection("polyline", newArray(10, 20, 30), newArray(10, 20, 10)); add("polyline");
makeSelection("angle", newArray(10, 20, 30), newArray(10, 20, 10)); add("angle");
makeArrow(10, 10, 50, 50, "filled"); add("arrow");
makeText("a word", 20, 20); add("text");
makeOval(10, 10, 12, 12); Roi.setStrokeColor("#d55e00"); Roi.setProperty("class", "pyknotic"); Roi.setPosition(3); add("told by colour");
makeOval(30, 10, 12, 12); Roi.setGroup(2); add("told by group");
roiManager("save", folder + "imagej_selections.zip");
selectWindow("masks");
saveAs("png", folder + "imagej_selections.png");

function add(name) {
    Roi.setName(name);
    roiManager("add");
    roiManager("select", roiManager("count") - 1);
    roiManager("rename", name);
}

function keep(name) {
    add(name);
    run("Create Mask");
    selectWindow("Mask");
    run("Select All");
    run("Copy");
    close();
    selectWindow("masks");
    makeRectangle(0, 90 * tile, 120, 90);
    run("Paste");
    run("Select None");
    selectWindow("field");
    run("Select None");
    tile++;
}
