// Adding an item: tried again by itself, and yet added only once.

import { ask, sending } from "./api.js";
import { byId, pause, setText, whileBusy } from "./dom.js";
import { clearMarks, draftOf, markRefused } from "./fields.js";
import { showNewest } from "./items.js";

const WAITS_MS = [500, 1000, 2000];

const tell = (text) => setText(byId("add-news"), text);

// The key goes with the text: pressing Add again after a failure is the same request.
let lastText = "";
let key = "";

export function offerAdding() {
  const form = byId("add");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(form, () => add(form));
  });
}

async function add(form) {
  clearMarks(form);
  const draft = draftOf(form);
  const answer = await send(draft);
  if (answer.ok) {
    form.reset();
    lastText = "";
    tell(`“${answer.body.name}” is added by api ${answer.replica}.`);
    await showNewest();
  } else {
    markRefused(form, answer.errors);
    const known = answer.status ? "Not added" : "Not known whether it is added";
    tell(`${known}: ${answer.detail}`);
  }
}

async function send(draft) {
  const text = JSON.stringify(draft);
  if (text !== lastText) [lastText, key] = [text, randomKey()];
  const request = sending("POST", draft, { "Idempotency-Key": key });
  let answer = await ask("/items", request);
  for (const wait of WAITS_MS) {
    if (answer.status !== 0 && answer.status !== 503) break;
    tell(`Not added yet, trying again: ${answer.detail}`);
    await pause(wait);
    answer = await ask("/items", request);
  }
  return answer;
}

// crypto.randomUUID exists over https only, and a lab machine is mostly opened over http.
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
