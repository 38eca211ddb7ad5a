import { useEffect, useRef, useState } from "react";
import type { StudyInfo } from "../api/types";
import { useReview } from "../state/store";
import { Crop } from "../ui/Crop";
import { HeatPicker } from "./HeatPicker";
import { type HeatQuestion, useHeat } from "./useHeat";

interface Props {
  study: StudyInfo;
  row: number;
  /** Code of the class that a heat map is about at first: the one that the model says. */
  about: number;
  alt: string;
}

/** One cell, large, with a heat map of a model over it on demand. */
export function LargeCrop({ study, row, about, alt }: Props) {
  const blind = useReview((state) => state.blind);
  const [asked, setAsked] = useState<HeatQuestion | null>(null);
  const [opacity, setOpacity] = useState(0.5);
  const question = !blind && asked?.row === row ? asked : null;
  const heat = useHeat(question);
  return (
    <div className="large-crop">
      <div className="large-crop-picture">
        <Crop row={row} alt={alt} />
        {heat.address !== null && <HeatLayer address={heat.address} opacity={opacity} />}
      </div>
      <p className="large-crop-scale">{windowWords(study)}</p>
      {!blind && (
        <HeatPicker
          key={row}
          study={study}
          about={about}
          heat={heat}
          opacity={opacity}
          onOpacity={setOpacity}
          onAsk={(model, code) => {
            setAsked(model === null ? null : { row, model, about: code });
          }}
        />
      )}
    </div>
  );
}

function windowWords(study: StudyInfo): string {
  const { window_px: px, um_per_px: scale } = study;
  const pixels = `Window of ${px} × ${px} px`;
  return scale === null ? `${pixels}, scale unknown` : `${pixels} = ${(px * scale).toFixed(1)} µm a side`;
}

function HeatLayer({ address, opacity }: { address: string; opacity: number }) {
  const image = useRef<HTMLImageElement>(null);
  useEffect(() => {
    image.current?.style.setProperty("opacity", String(opacity));
  }, [opacity]);
  return <img ref={image} className="large-crop-heat" src={address} alt="" />;
}
