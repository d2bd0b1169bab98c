// One item's text, in the list and beside somebody else's version of it.

import { part, setText } from "./dom.js";

// Fills the places for name, note and time in `root`.
export function drawItem(root, { name, note, version, updated_at: updatedAt }) {
  setText(part(root, "name"), name);
  setText(part(root, "note"), note ?? "");
  const when = new Date(updatedAt).toLocaleString();
  const what = version > 1 ? `changed ${when}, version ${version}` : `added ${when}`;
  setText(part(root, "when"), what);
}
