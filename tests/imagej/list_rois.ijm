// Opens an archive of ROIs in the ROI manager and tells what ImageJ makes of each.
// Argument: archive|width|height|map|table. The map holds the number of the ROI (from 1) at each of its pixels; later
// ROIs paint over earlier ones. The table has one line per ROI.
words = split(getArgument(), "|");
setBatchMode(true);
newImage("map", "16-bit black", parseInt(words[1]), parseInt(words[2]), 1);
roiManager("open", words[0]);
table = File.open(words[4]);
print(table, "name\ttype\tgroup\tcolour\tclass\tprobability\tarea\tx\ty\twidth\theight");
for (i = 0; i < roiManager("count"); i++) {
    roiManager("select", i);
    Roi.getBounds(x, y, width, height);
    getStatistics(area);
    print(table, Roi.getName + "\t" + Roi.getType + "\t" + Roi.getGroup + "\t" + Roi.getStrokeColor + "\t"
        + Roi.getProperty("class") + "\t" + Roi.getProperty("p(normal)") + "\t" + area + "\t"
        + x + "\t" + y + "\t" + width + "\t" + height);
    run("Set...", "value=" + (i + 1));
}
File.close(table);
run("Select None");
saveAs("tiff", words[3]);
