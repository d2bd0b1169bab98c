// Shows what the stack says about itself. All data goes in as text, never as markup.

const REFRESH_MS = 2000;
// Above the api's own bound of two seconds and nginx's attempts at another replica.
const PATIENCE_MS = 5000;

const element = (id) => document.getElementById(id);

function show(id, text) {
  const target = element(id);
  // Unchanged text is left alone, or a screen reader reads it out every two seconds.
  if (target.textContent !== text) target.textContent = text;
}

function showOrHide(id, text) {
  element(id).hidden = !text;
  show(id, text);
}

function make(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Resolves to {ok, status, body, replica, frontend, source}; rejects when nobody
// who belongs to the stack has answered.
async function ask(path, options = {}) {
  const response = await fetch(`/api${path}`, {
    ...options,
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const type = response.headers.get("content-type") ?? "";
  if (response.status !== 204 && !type.includes("json")) {
    throw new Error(`the gateway answers ${response.status}`);
  }
  return {
    ok: response.ok,
    status: response.status,
    body: response.status === 204 ? null : await response.json(),
    replica: response.headers.get("x-replica"),
    frontend: response.headers.get("x-served-by"),
    source: response.headers.get("x-source"),
  };
}

function showState(id, report) {
  const target = element(id);
  target.classList.toggle("good", report?.status === "ok");
  target.classList.toggle("bad", report?.status === "away");
  if (!report) show(id, "unknown");
  else show(id, report.status === "ok" ? "ok" : `away: ${report.reason}`);
}

// Black or white, whichever can be read on the colour.
function textColourOn(colour) {
  const channel = (at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const luminance = 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
  return luminance > 0.179 ? "#000" : "#fff";
}

function showConfig({ config, error }) {
  const style = document.documentElement.style;
  style.setProperty("--accent", config.colour);
  style.setProperty("--on-accent", textColourOn(config.colour));
  show("banner-text", config.banner);
  document.title = config.banner;
  const where = error?.line ? ` (line ${error.line})` : "";
  showOrHide("config-error", error ? `The configuration file has a mistake${where}, the last good one is in use: ${error.detail}` : "");
  element("note-field").hidden = config.features.notes === false;
  const features = Object.entries(config.features).map(([name, on]) => `${name}: ${on ? "on" : "off"}`);
  element("features-section").hidden = features.length === 0;
  redraw("features", features, (text) => make("li", text));
}

const drawn = new Map();

// Draws only what changed: a new list every two seconds would take the focus away.
function redraw(id, values, draw) {
  const now = JSON.stringify(values);
  if (drawn.get(id) === now) return;
  drawn.set(id, now);
  const focused = document.activeElement?.dataset?.key;
  element(id).replaceChildren(...values.map(draw));
  if (focused) element(id).querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function button(text, label, key, action) {
  const made = make("button", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.dataset.key = key;
  made.addEventListener("click", () => attempt(action));
  return made;
}

function drawItem(item) {
  const row = document.createElement("li");
  const what = make("span", item.name, "what");
  if (item.note) what.append(make("span", ` ${item.note}`, "note"));
  row.append(
    what,
    button("Read", `Read ${item.name}`, `read-${item.id}`, async () => {
      const start = performance.now();
      const answer = await ask(`/items/${item.id}`);
      const took = Math.round(performance.now() - start);
      return answer.ok ? `${answer.body.name}: from the ${answer.source}, ${took} ms, api ${answer.replica}` : answer.body.detail;
    }),
    button("Delete", `Delete ${item.name}`, `delete-${item.id}`, async () => {
      const answer = await ask(`/items/${item.id}`, { method: "DELETE" });
      await refreshItems();
      return answer.ok ? `${item.name} is deleted.` : answer.body.detail;
    }),
  );
  return row;
}

async function attempt(action) {
  try {
    show("message", await action());
  } catch (error) {
    show("message", `Not done, as far as can be told: ${error.message}`);
  }
}

async function refreshItems() {
  const answer = await ask("/items");
  if (!answer.ok) return;
  redraw("items", answer.body.items, drawItem);
  element("no-items").hidden = answer.body.items.length > 0;
  element("more").hidden = answer.body.next === null;
}

let lastContact = null;
let visitCounted = false;

function lost(reason) {
  document.body.classList.add("lost");
  const since = lastContact ? `since ${lastContact.toLocaleTimeString()}` : "so far";
  showOrHide("contact", `No contact ${since}: ${reason}. What is shown may be outdated; trying again.`);
}

function found() {
  document.body.classList.remove("lost");
  lastContact = new Date();
  showOrHide("contact", "");
  show("updated", lastContact.toLocaleTimeString());
}

async function refresh() {
  try {
    const health = await ask("/health");
    show("frontend", health.frontend ?? "unknown");
    show("api", health.replica ?? "none");
    showState("database", health.body.database);
    showState("cache", health.body.cache);
    if (!health.replica) {
      lost(health.body.detail);
    } else {
      const [config] = await Promise.all([ask("/config"), refreshItems()]);
      if (config.ok) showConfig(config.body);
      // A visit is opening the page, not each refresh; without a cache nothing counted.
      if (!visitCounted) {
        const { ok, body } = await ask("/session");
        visitCounted = ok && body.visits !== null;
        show("visits", visitCounted ? String(body.visits) : "not known");
      }
      found();
    }
  } catch (error) {
    lost(error.name === "TimeoutError" ? "no answer in time" : error.message);
  }
  setTimeout(refresh, REFRESH_MS);
}

element("add").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const draft = { name: element("name").value };
    if (element("note").value) draft.note = element("note").value;
    const answer = await ask("/items", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(draft),
    });
    if (!answer.ok) return answer.body.detail;
    event.target.reset();
    await refreshItems();
    return `${answer.body.name} is added by api ${answer.replica}.`;
  });
});

refresh();
