// The picture of tiers and networks, kept up to date.

import { arrange, byId, clock, fromTemplate, part, setText, setTextOrHide } from "./dom.js";
import { Roster } from "./roster.js";

const LINES = 3;

// A tier of replicas can be empty: then their names cannot be looked up just now.
const TIERS = [
  { id: "gateway", noun: "The", of: ({ gateway }) => [{ name: "gateway", ...gateway }] },
  { id: "frontends", noun: "Frontend", replicas: true, of: ({ frontends }) => frontends },
  { id: "apis", noun: "Api", replicas: true, of: ({ apis }) => apis },
  {
    id: "stores",
    noun: "The",
    of: ({ database, cache }) => [
      { name: "database", ...withLastWrite(database) },
      { name: "cache", ...cache },
    ],
  },
].map((tier) => ({ ...tier, roster: new Roster(), drawn: new Map() }));

// How many of the last requests each node answered, by tier and name.
let shares = { sent: 0, gateway: new Map(), frontends: new Map(), apis: new Map() };

// A database that answers but refuses writes is not well.
function withLastWrite({ last_write: lastWrite, ...database }) {
  if (database.status !== "ok" || !lastWrite?.startsWith("refused")) return database;
  return { ...database, status: "degraded", reason: `last write ${lastWrite}` };
}

export function showTopology(status) {
  const now = Date.now();
  const sentences = [];
  for (const tier of TIERS) {
    const reported = tier.of(status);
    const unknown = tier.replicas && reported.length === 0;
    const note = byId(tier.id).previousElementSibling;
    setTextOrHide(note, unknown ? "names cannot be looked up just now" : "");
    if (!unknown) sentences.push(...tell(tier.noun, tier.roster.update(reported, now)));
    draw(tier);
  }
  if (sentences.length) log(`${clock(new Date())}: ${sentences.join(" ")}`);
}

// What is added here is read out politely.
function log(text) {
  const line = document.createElement("p");
  setText(line, text);
  byId("news").append(line);
  if (byId("news").childElementCount > LINES) byId("news").firstElementChild.remove();
}

export function showShares(counts) {
  shares = counts;
  TIERS.forEach(draw);
}

function tell(noun, { came, left, changed }) {
  const sentences = [];
  if (came.length) sentences.push(`${who(noun, came)} came.`);
  if (left.length) sentences.push(`${who(noun, left)} left.`);
  for (const node of changed) sentences.push(`${who(noun, [node])} is ${inWords(node)}.`);
  return sentences;
}

// More than three names nobody can follow, least of all by ear.
function who(noun, nodes) {
  if (nodes.length > 3) return `${nodes.length} ${noun}s`.toLowerCase();
  const names = nodes.map(({ name }) => name).join(", ");
  return `${noun}${nodes.length > 1 ? "s" : ""} ${names}`;
}

const inWords = ({ status, reason }) => (reason ? `${status}: ${reason}` : status);

function draw(tier) {
  // Until something is known, the places that the page came with stay.
  if (tier.roster.nodes.length === 0) return;
  const elements = tier.roster.nodes.map((node) => {
    if (!tier.drawn.has(node.name)) tier.drawn.set(node.name, fromTemplate("node-template"));
    const element = tier.drawn.get(node.name);
    drawNode(element, node, tier);
    return element;
  });
  for (const [name, element] of tier.drawn) {
    if (!elements.includes(element)) tier.drawn.delete(name);
  }
  arrange(byId(tier.id), elements);
}

function drawNode(element, node, tier) {
  element.dataset.status = node.status;
  element.classList.toggle("is-new", node.isNew);
  setText(part(element, "name"), node.name);
  setText(part(element, "mark"), node.isNew ? "new" : "");
  setText(part(element, "state"), node.status);
  const measured = node.ms !== undefined && node.status !== "gone";
  setText(part(element, "ms"), measured ? `${node.ms.toFixed(1)} ms` : "");
  const since = node.goneSince && `since ${clock(new Date(node.goneSince))}`;
  setTextOrHide(part(element, "reason"), since ?? node.reason ?? "");
  drawShare(element, shares[tier.id]?.get(node.name) ?? 0, tier.id in shares);
}

function drawShare(element, count, isAsked) {
  const hasPart = isAsked && (count > 0 || element.dataset.status !== "gone");
  element.querySelector(".share").hidden = !hasPart;
  element.style.setProperty("--share", shares.sent ? count / shares.sent : 0);
  setText(part(element, "share"), shares.sent ? `${count} of ${shares.sent}` : "");
}
