// Counts the visit: once a page, and as soon as there is a cache to count in.

import { ask } from "./api.js";
import { byId, setText } from "./dom.js";

let isAsking = false;
let isKnown = false;

export async function countVisit({ cache }) {
  if (isKnown || isAsking) return;
  const away = "not known: the cache, which counts them, is away";
  if (cache.status !== "ok") return setText(byId("visits"), away);
  isAsking = true;
  const { ok, body, detail } = await ask("/session");
  isAsking = false;
  isKnown = ok && body.visits !== null;
  if (isKnown) setText(byId("visits"), String(body.visits));
  else setText(byId("visits"), ok ? away : `not known: ${detail}`);
}
