// Shows the configuration, which people edit while the stack runs.

import { arrange, byId, clock, setText, setTextOrHide } from "./dom.js";

const featureChips = new Map();

export function showConfig({ config, loaded_at: loadedAt, error }) {
  const style = document.documentElement.style;
  style.setProperty("--accent", config.colour);
  style.setProperty("--on-accent", textColourOn(config.colour));
  setText(byId("banner"), config.banner);
  if (document.title !== config.banner) document.title = config.banner;

  document.body.classList.toggle("without-notes", config.features.notes === false);
  arrange(byId("features"), Object.entries(config.features).map(featureChip));
  const loaded = loadedAt ? `loaded ${clock(new Date(loadedAt))}` : "the defaults";
  setText(byId("config-loaded"), `${config.page_size} items a page; ${loaded}`);

  const where = error?.line ? `, line ${error.line}` : "";
  const text = `The configuration file has a mistake${where}: ${error?.detail}. `;
  setTextOrHide(byId("config-error"), error ? `${text}What was loaded last stays in use.` : "");
}

function featureChip([name, on]) {
  if (!featureChips.has(name)) featureChips.set(name, document.createElement("li"));
  const chip = featureChips.get(name);
  chip.classList.toggle("is-on", on);
  setText(chip, `${name} ${on ? "on" : "off"}`);
  return chip;
}

// Black or white, whichever can be read on the colour (WCAG's relative luminance).
function textColourOn(colour) {
  const channel = (at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const luminance = 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
  return luminance > 0.179 ? "#000" : "#fff";
}
