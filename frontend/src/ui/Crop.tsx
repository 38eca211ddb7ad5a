import { useLayoutEffect, useRef } from "react";
import { cropAddress } from "../api/client";
import { useReview } from "../state/store";

interface Props {
  row: number;
  /** What it shows, for those who do not see it; "" where words beside it say so. */
  alt: string;
  className?: string;
  /** Without it, as the switch of the page says. */
  outlined?: boolean;
}

/** The picture of a cell, as the study has it. */
export function Crop({ row, alt, className = "", outlined }: Props) {
  const hash = useReview((s) => s.study?.data_hash ?? "");
  const windowPx = useReview((s) => s.study?.window_px);
  const switched = useReview((s) => s.outlined);
  const image = useRef<HTMLImageElement>(null);
  const address = cropAddress(hash, row, outlined ?? switched);
  useLayoutEffect(() => {
    if (image.current) image.current.src = address;
  }, [address]);
  useLayoutEffect(() => {
    const element = image.current;
    return () => {
      element?.removeAttribute("src"); // a picture scrolled past must not hold up those to be seen
    };
  }, []);
  return (
    <img
      ref={image}
      className={`crop ${className}`}
      alt={alt}
      width={windowPx}
      height={windowPx}
      decoding="async"
      draggable={false}
    />
  );
}
