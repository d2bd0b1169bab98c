// Sends requests and counts who answered them.

import { ask } from "./api.js";
import { byId, setText, whileBusy } from "./dom.js";
import { showShares } from "./topology.js";

const REQUESTS = 50;
const AT_ONCE = 8;
const UNCACHED = { cache: "no-store" };

export function offerBurst() {
  const button = byId("burst");
  button.addEventListener("click", () => whileBusy(button, burst));
}

async function burst() {
  setText(byId("burst-result"), "");
  const counts = { sent: REQUESTS, gateway: new Map(), frontends: new Map(), apis: new Map() };
  let left = REQUESTS;
  let answered = 0;
  let repeated = 0;

  async function sendWhileAnyIsLeft() {
    while (left > 0) {
      left -= 1;
      const { ok, isRepeated, replica, frontend } = await ask("/whoami", UNCACHED);
      if (ok) answered += 1;
      if (isRepeated) repeated += 1;
      if (frontend) {
        count(counts.gateway, "gateway");
        count(counts.frontends, frontend);
      }
      if (replica) count(counts.apis, replica);
      showShares(counts);
    }
  }

  await Promise.all(Array.from({ length: AT_ONCE }, sendWhileAnyIsLeft));
  const spread = `frontends ${inOrder(counts.frontends)}; apis ${inOrder(counts.apis)}`;
  const again = repeated ? `, ${repeated} asked twice` : "";
  const text = `${answered} answered, ${REQUESTS - answered} failed${again}; ${spread}`;
  setText(byId("burst-result"), text);
}

const count = (counts, name) => counts.set(name, (counts.get(name) ?? 0) + 1);

function inOrder(counts) {
  return [...counts.values()].sort((a, b) => b - a).join(", ") || "none";
}
