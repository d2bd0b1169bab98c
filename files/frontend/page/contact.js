// Asks for the stack's status each second, and says plainly when there is no answer.

import { ask } from "./api.js";
import { byId, clock, setText } from "./dom.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 2500;

let lastContact = null;
let timeouts = 0;

// Calls `onStatus` with each status. A hidden page asks nothing; shown again, at once.
export function follow(onStatus) {
  let round = 0;
  let timer;

  async function askOnce(mine) {
    const start = performance.now();
    const answer = await ask("/status", { patience: PATIENCE_MS });
    if (mine !== round) return;
    if (answer.ok) {
      showFound(answer);
      onStatus(answer.body);
    } else {
      showLost(answer);
    }
    const took = performance.now() - start;
    timer = setTimeout(askOnce, Math.max(0, EVERY_MS - took), mine);
  }

  function startOrStop() {
    round += 1;
    clearTimeout(timer);
    if (!document.hidden) askOnce(round);
  }

  document.addEventListener("visibilitychange", startOrStop);
  startOrStop();
}

function showFound({ frontend, replica }) {
  timeouts = 0;
  lastContact = new Date();
  document.body.classList.remove("is-lost");
  setText(byId("lost"), "");
  setText(byId("live"), `Live: ${clock(lastContact)}, frontend ${frontend}, api ${replica}`);
}

function showLost(answer) {
  // One replica that hangs is not yet the stack: the next question goes to another one.
  timeouts = answer.timedOut ? timeouts + 1 : 0;
  if (timeouts === 1) return;
  document.body.classList.add("is-lost");
  const since = lastContact ? `since ${clock(lastContact)}` : "so far";
  const outdated = lastContact ? "What is shown is from then. " : "";
  const text = `${whatIsLost(answer)} ${since}. ${answer.detail} ${outdated}Trying again.`;
  setText(byId("live"), "");
  setText(byId("lost"), text);
}

function whatIsLost({ status, frontend }) {
  if (status === 0) return "No contact";
  return frontend ? "No answer from an api" : "No answer from a frontend";
}
