// The way to the api: each question has an answer, even if nobody gave one.

import { pause } from "./dom.js";

// Above the time that nginx takes to ask further replicas.
const PATIENCE_MS = 8000;
const REPEAT_MS = 200;

// Resolves, never rejects, to what there is of
//   ok, status (0: nobody answered), timedOut, isRepeated, body, ms;
//   detail, errors: what is wrong, in sentences, and which fields;
//   replica, frontend: who answered; source, age: where the data comes from.
export async function ask(path, options = {}) {
  const answer = await askOnce(path, options);
  // Browsers drop requests when an interface of their machine comes or goes, as on the lab
  // machine itself with every container. All but adding can be asked again as it is.
  if (answer.status !== 0 || answer.timedOut || options.method === "POST") return answer;
  await pause(REPEAT_MS);
  return { ...(await askOnce(path, options)), isRepeated: true };
}

async function askOnce(path, { patience = PATIENCE_MS, ...options }) {
  const start = performance.now();
  let response;
  let body = null;
  try {
    response = await fetch(`/api${path}`, { ...options, signal: AbortSignal.timeout(patience) });
    if (/json/.test(response.headers.get("content-type"))) body = await response.json();
  } catch (error) {
    const timedOut = error.name === "TimeoutError";
    const detail = timedOut
      ? `No answer within ${patience / 1000} seconds.`
      : "The machine cannot be reached.";
    return { ok: false, status: 0, timedOut, detail, errors: [] };
  }
  const header = (name) => response.headers.get(name);
  const ok = response.ok && (body !== null || response.status === 204);
  return {
    ok,
    status: response.status,
    body,
    ms: performance.now() - start,
    detail: ok ? "" : (body?.detail ?? withoutDetail(response.status)),
    errors: body?.errors ?? [],
    replica: header("x-replica"),
    frontend: header("x-served-by"),
    source: header("x-source"),
    age: Number(header("age")),
  };
}

function withoutDetail(status) {
  if (status === 503) return "The gateway has no frontend that is ready.";
  return `Something that is not the api answers with status ${status}.`;
}

// The options of a request that sends `data`.
export function sending(method, data, headers) {
  return {
    method,
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(data),
  };
}

// Names the version that the user saw, so that nobody's later change is overwritten.
export const ifUnchanged = (item) => ({ "If-Match": `"${item.id}.${item.version}"` });

export const inMs = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
