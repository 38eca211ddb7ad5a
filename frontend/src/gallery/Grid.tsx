import { defaultRangeExtractor, type Range, useVirtualizer } from "@tanstack/react-virtual";
import { memo, type MouseEvent, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { useReview } from "../state/store";
import { useCssProperty } from "../ui/useCssProperty";
import { Tile } from "./Tile";
import { useFlying } from "./useFlying";
import { useGridKeys } from "./useGridKeys";

const GAP = 8;
const WORDS_HEIGHT = 28;
const TILE_BORDERS = 4;

/** Where the gallery was when it was left, to come back to. */
let left: { rows: Uint32Array | null; top: number; place: number } = { rows: null, top: 0, place: 0 };

/** The crops: as many rows of them as can be seen, and a few more. */
export function Grid({ size }: { size: number }) {
  const rows = useReview((s) => s.rows);
  const place = useReview((s) => s.place);
  const asking = useReview((s) => s.asking);
  const { goTo, open, need } = useReview.getState();
  const scroller = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const columns = Math.max(1, Math.floor((width - GAP) / (size + TILE_BORDERS + GAP)));
  const side = Math.max(16, Math.floor((width - GAP) / columns) - GAP - TILE_BORDERS); // rows fill the width
  const rowHeight = side + TILE_BORDERS + WORDS_HEIGHT + GAP;
  const nRows = Math.ceil(rows.length / columns);
  const rowHere = Math.floor(place / columns);

  // eslint-disable-next-line react-hooks/incompatible-library -- it renders this component itself when it changes
  const virtual = useVirtualizer({
    count: width > 0 ? nRows : 0,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 3,
    paddingStart: GAP,
    // the cell with the keyboard stays in the page, or it would lose the focus when scrolled away
    rangeExtractor: useCallback(
      (range: Range) => {
        const shown = defaultRangeExtractor(range);
        if (rowHere >= range.count || shown.includes(rowHere)) return shown;
        return [...shown, rowHere].sort((a, b) => a - b);
      },
      [rowHere],
    ),
  });
  const items = virtual.getVirtualItems();
  const flying = useFlying(scroller);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const measure = () => {
      setWidth(element.clientWidth);
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => {
      observer.disconnect();
    };
  }, []);

  useLayoutEffect(() => {
    virtual.measure();
  }, [virtual, rowHeight, columns]);

  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? -1;
  useEffect(() => {
    if (!flying) need([...rows.subarray(first * columns, (last + 1) * columns)]);
  }, [need, rows, columns, first, last, flying]);

  // come back to where the gallery was left, and follow the keyboard from there
  const followed = useRef<{ rows: Uint32Array | null; place: number }>({ rows: null, place: 0 });
  useEffect(() => {
    if (nRows === 0 || width === 0) return;
    const before = followed.current;
    followed.current = { rows, place };
    if (before.rows === null && left.rows === rows) {
      virtual.scrollToOffset(left.top);
      scroller.current?.querySelector<HTMLElement>(`[data-place="${place}"]`)?.focus({ preventScroll: true });
      if (left.place === place) return;
    }
    if (before.rows !== rows || before.place !== place) virtual.scrollToIndex(rowHere, { align: "auto" });
  }, [virtual, rows, place, rowHere, nRows, width]);
  useLayoutEffect(() => {
    const element = scroller.current;
    return () => {
      const { rows: rowsNow, place: placeNow } = useReview.getState();
      left = { rows: rowsNow, top: element?.scrollTop ?? 0, place: placeNow };
    };
  }, []);

  useGridKeys(scroller, {
    n: rows.length,
    columns,
    rowsShown: Math.floor((virtual.scrollRect?.height ?? 0) / rowHeight),
  });

  const placeOf = (event: MouseEvent) => {
    const tile = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-place]") : null;
    return tile?.dataset["place"] === undefined ? null : Number(tile.dataset["place"]);
  };
  const height = useCssProperty("--height", `${virtual.getTotalSize()}px`);
  const crop = useCssProperty("--crop", `${side}px`);

  return (
    <div ref={scroller} className="grid-scroller" data-asking={asking}>
      {rows.length === 0 && !asking && <p className="waiting muted">No cell fits these filters.</p>}
      <div
        ref={crop}
        role="grid"
        tabIndex={-1}
        aria-label="Cells"
        aria-rowcount={nRows}
        aria-colcount={columns}
        aria-busy={asking}
        onMouseDown={(event) => {
          const at = placeOf(event);
          if (at !== null) goTo(at);
        }}
        onDoubleClick={(event) => {
          const row = rows[placeOf(event) ?? -1];
          if (row !== undefined) open(row);
        }}
      >
        <div ref={height} className="grid-sheet" role="presentation">
          {items.map((item) => (
            <GridRow
              key={item.key}
              index={item.index}
              start={item.start}
              rows={rows}
              columns={columns}
              flying={flying}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

interface RowProps {
  index: number;
  start: number;
  rows: Uint32Array;
  columns: number;
  flying: boolean;
}

const GridRow = memo(function GridRow({ index, start, rows, columns, flying }: RowProps) {
  const top = useCssProperty("--top", `${start}px`);
  const from = index * columns;
  return (
    <div ref={top} className="grid-row" role="row" aria-rowindex={index + 1}>
      {[...rows.subarray(from, from + columns)].map((row, column) => (
        <Tile key={row} row={row} place={from + column} column={column} flying={flying} />
      ))}
    </div>
  );
});
