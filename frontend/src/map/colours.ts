/** The palette of all figures (`perikarya.palette`), without its grey, which stands for "none" here. */
export const VALUE_COLOURS = [
  "#0072b2",
  "#e69f00",
  "#a50026",
  "#56b4e9",
  "#0b1f4b",
  "#d9b98c",
  "#d55e00",
  "#882255",
  "#999933",
  "#f0e442",
  "#000000",
];
export const NONE_COLOUR = "#8f8f8f";

/** Steps of the scale cividis (Nuñez, Anderton & Renslow 2018), without its lightest, too pale on a light ground. */
const SCALE = [
  "#00224e",
  "#013271",
  "#2f426d",
  "#48526c",
  "#5e636f",
  "#727374",
  "#878478",
  "#9d9576",
  "#b6a96f",
  "#cebc63",
  "#e7d150",
];

export function scaleColour(share: number): string {
  const place = Math.round(Math.min(1, Math.max(0, share)) * (SCALE.length - 1));
  return SCALE[place] ?? NONE_COLOUR;
}
