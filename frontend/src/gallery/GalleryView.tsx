import { useState } from "react";
import { useReview } from "../state/store";
import { useCellKeys } from "../ui/useCellKeys";
import { ActionBar } from "./ActionBar";
import { FilterPanel } from "./FilterPanel";
import { Grid } from "./Grid";
import { Toolbar } from "./Toolbar";
import { readSettings } from "../state/settings";
import "./gallery.css";

/** Thousands of crops, by the question asked. */
export default function GalleryView() {
  const row = useReview((s) => s.rows[s.place]);
  const [size, setSize] = useState(readSettings().cropSize);
  const [filtersOpen, setFiltersOpen] = useState(false);
  useCellKeys(row);
  return (
    <div className={filtersOpen ? "gallery filters-open" : "gallery"}>
      <h2 className="visually-hidden">Gallery</h2>
      <FilterPanel
        onClose={() => {
          setFiltersOpen(false);
        }}
      />
      <div className="gallery-main">
        <Toolbar
          size={size}
          onSize={setSize}
          onFilters={() => {
            setFiltersOpen(!filtersOpen);
          }}
          filtersOpen={filtersOpen}
        />
        <Grid size={size} />
        <ActionBar />
      </div>
    </div>
  );
}
