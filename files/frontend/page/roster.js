// Who is in a tier, who is new and who has gone.

const NEW_MS = 6000;
const GONE_MS = 30000;
// Replicas look names up at different times, so one may know less than the one before.
const MISSES = 2;

// A node that does not tell its name is listed by its address until it does.
const isAddress = (name) => /[.:]/.test(name);

export class Roster {
  #nodes = new Map();
  #started = false;

  // Each node as reported, with `isNew` or with `goneSince`; those who came last stand last.
  get nodes() {
    return [...this.#nodes.values()];
  }

  // Takes in the nodes as they are at `now`; returns what happened as three lists of nodes.
  update(reported, now) {
    const news = { came: [], left: [], changed: [] };
    for (const report of reported) this.#see(report, now, news);
    const present = new Set(reported.map(({ name }) => name));
    for (const node of this.nodes) if (!present.has(node.name)) this.#miss(node, now, news);
    this.#started = true;
    return news;
  }

  #see(report, now, news) {
    const before = this.#nodes.get(report.name);
    const comes = !before || before.goneSince;
    const node = { ...report, misses: 0, newUntil: before?.newUntil ?? 0 };
    if (comes && this.#started && !isAddress(report.name)) {
      node.newUntil = now + NEW_MS;
      news.came.push(node);
    } else if (!comes && before.status !== report.status) {
      news.changed.push(node);
    }
    node.isNew = node.newUntil > now;
    this.#nodes.set(report.name, node);
  }

  #miss(node, now, news) {
    node.misses += 1;
    if (isAddress(node.name)) {
      this.#nodes.delete(node.name);
    } else if (node.goneSince) {
      if (now - node.goneSince >= GONE_MS) this.#nodes.delete(node.name);
    } else if (node.misses >= MISSES) {
      Object.assign(node, { status: "gone", goneSince: now, isNew: false });
      news.left.push(node);
    }
  }
}
