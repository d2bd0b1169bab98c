// The list of items: search, pages, and what can be done with each.

import { ask, inMs } from "./api.js";
import { arrange, byId, clock, fromTemplate, part, setText, setTextOrHide } from "./dom.js";
import { openDelete, openEdit } from "./dialogs.js";
import { drawItem } from "./item.js";

const REFRESH_MS = 3000;
const TYPING_MS = 250;

// The `after` of the page shown and of each newer one; the first page has none.
let afters = [];
let next = null;
let turn = 0;
let loading = 0;
let lastLoad = 0;
let lastSeen = "";
const rows = new Map();

export function offerItems() {
  const search = byId("search-text");
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(startSearch, TYPING_MS);
  });
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  byId("newer").addEventListener("click", () => afters.length && turnPage(afters.slice(0, -1)));
  byId("older").addEventListener("click", () => next !== null && turnPage([...afters, next]));
  load();
}

// Others change items too, and a store that comes or goes changes what can be told.
export function followItems({ config, database, cache }) {
  if (loading > 0) return;
  const seen = [config.config.page_size, database.status, cache.status].join();
  if (seen !== lastSeen || performance.now() - lastLoad > REFRESH_MS) load();
  lastSeen = seen;
}

const tell = (text) => setText(byId("items-news"), text);

export async function showNewest() {
  afters = [];
  await load();
}

async function startSearch() {
  await showNewest();
  const query = byId("search-text").value;
  tell(query ? `${next === null ? rows.size : `More than ${rows.size}`} found.` : "");
}

async function turnPage(to) {
  afters = to;
  await load();
  tell(`Page ${afters.length + 1}.`);
}

async function load() {
  const mine = ++turn;
  lastLoad = performance.now();
  const params = new URLSearchParams();
  const query = byId("search-text").value;
  if (query) params.set("q", query);
  if (afters.length) params.set("after", afters.at(-1));
  loading += 1;
  const answer = await ask(`/items?${params}`);
  loading -= 1;
  // A later question has overtaken this one.
  if (mine !== turn) return;
  showSource(answer);
  if (!answer.ok) return;
  const { items } = answer.body;
  if (items.length === 0 && afters.length) {
    afters.pop();
    await load();
    return;
  }
  next = answer.body.next;
  show(items, query);
}

function showSource({ ok, detail, source, age, ms, replica }) {
  const line = byId("list-source");
  line.classList.toggle("is-stale", !ok || source === "stale");
  if (!ok) {
    setText(line, `Not up to date: ${detail}`);
  } else if (source === "stale") {
    const asOf = clock(new Date(Date.now() - age * 1000));
    const from = `from the cache in ${inMs(ms)}, api ${replica}`;
    setText(line, `Stale, as of ${asOf}: the database is away; ${from}`);
  } else {
    setText(line, `From the ${source} in ${inMs(ms)}, api ${replica}`);
  }
}

function show(items, query) {
  const shown = new Set(items.map(({ id }) => id));
  for (const id of rows.keys()) if (!shown.has(id)) rows.delete(id);
  arrange(byId("items"), items.map(drawRow));
  const none = query ? `Nothing holds “${query}”.` : "No items yet.";
  setTextOrHide(byId("no-items"), items.length ? "" : none);
  setText(byId("page-number"), `page ${afters.length + 1}`);
  // Not `disabled`, which would take the focus away from who is paging.
  byId("newer").ariaDisabled = String(afters.length === 0);
  byId("older").ariaDisabled = String(next === null);
}

function drawRow(item) {
  if (!rows.has(item.id)) rows.set(item.id, makeRow(item.id));
  const row = rows.get(item.id);
  row.item = item;
  drawItem(row.element, item);
  for (const action of ["Read", "Edit", "Delete"]) {
    part(row.element, action.toLowerCase()).ariaLabel = `${action} ${item.name}`;
  }
  return row.element;
}

function makeRow(id) {
  const row = { element: fromTemplate("item-template") };
  const on = (name, work) => part(row.element, name).addEventListener("click", work);
  on("read", () => read(id, row.element));
  on("edit", () => openEdit(row.item, finish));
  on("delete", () => openDelete(row.item, finish));
  return row;
}

async function finish(sentence) {
  tell(sentence);
  await load();
  // The row, and with it the button that was pressed, may be gone.
  if (document.activeElement === document.body) byId("items-title").focus();
}

async function read(id, element) {
  const { ok, body, detail, source, ms, replica } = await ask(`/items/${id}`);
  if (ok && rows.has(id)) drawRow(body);
  const from = `Read from the ${source} in ${inMs(ms)}, api ${replica}`;
  setText(part(element, "answer"), ok ? from : `Not read: ${detail}`);
}
