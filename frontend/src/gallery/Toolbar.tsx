import { useEffect, useRef, useState } from "react";
import { keepSettings } from "../state/settings";
import { useReview } from "../state/store";
import { Button } from "../ui/Button";
import { useShortcuts } from "../ui/useShortcuts";
import { SortControl } from "./SortControl";

const TYPED_MS = 250;

interface Props {
  size: number;
  onSize: (size: number) => void;
  filtersOpen: boolean;
  onFilters: () => void;
}

/** What the list is of, how it is ordered and how large its crops are. */
export function Toolbar({ size, onSize, filtersOpen, onFilters }: Props) {
  const n = useReview((s) => s.rows.length);
  const nFilters = useReview((s) => s.query.filters.length + Number(s.query.within !== null));
  const stale = useReview((s) => s.stale);
  const { refresh } = useReview.getState();
  const renew = () => void refresh();
  useShortcuts({ r: renew });
  return (
    <div className="toolbar">
      <Button className="filters-toggle" aria-expanded={filtersOpen} onClick={onFilters}>
        Filters{nFilters > 0 && ` (${nFilters})`}
      </Button>
      <p className="toolbar-n">
        <strong>{n.toLocaleString("en")}</strong> {n === 1 ? "cell" : "cells"}
      </p>
      <Button
        look="quiet"
        shortcut="R"
        disabled={!stale}
        title="Labels changed since this list was made: ask for it again"
        onClick={renew}
      >
        Refresh
      </Button>
      <TextFilter />
      <SortControl />
      <label className="toolbar-size">
        <span>Size</span>
        <input
          type="range"
          min={48}
          max={208}
          step={16}
          value={size}
          onChange={(event) => {
            const chosen = Number(event.target.value);
            keepSettings({ cropSize: chosen });
            onSize(chosen);
          }}
        />
      </label>
    </div>
  );
}

function TextFilter() {
  const asked = useReview((s) => s.query.text);
  const { ask } = useReview.getState();
  const [typed, setTyped] = useState(asked);
  const [known, setKnown] = useState(asked);
  const field = useRef<HTMLInputElement>(null);
  if (known !== asked) {
    setKnown(asked); // a preset or the address changed it
    setTyped(asked);
  }
  useEffect(() => {
    if (typed === asked) return;
    const timer = setTimeout(() => void ask({ text: typed }), TYPED_MS);
    return () => {
      clearTimeout(timer);
    };
  }, [typed, asked, ask]);
  useShortcuts({ "/": () => field.current?.focus() });
  return (
    <input
      ref={field}
      className="toolbar-text"
      type="search"
      value={typed}
      placeholder="Find cell, image, subject ( / )"
      aria-label="Cell, image or subject"
      aria-keyshortcuts="/"
      maxLength={200}
      onChange={(event) => {
        setTyped(event.target.value);
      }}
      onKeyDown={(event) => {
        if (event.key === "Escape" || event.key === "Enter") event.currentTarget.blur();
      }}
    />
  );
}
