// Small helpers. All data enters the page through setText: as text, never as markup.

export const byId = (id) => document.getElementById(id);

export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

export const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);

// Unchanged text is left alone, or a screen reader reads it out again.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setTextOrHide(target, text) {
  target.hidden = !text;
  setText(target, text);
}

// Makes `wanted` the children of `parent`. Who is in place already stays untouched, and
// with it the focus.
export function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  wanted.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
}

export const clock = (date) => date.toLocaleTimeString();

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Does `work` unless the form is still at its last one: a second press of Enter is not a
// second request.
export async function whileBusy(form, work) {
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  try {
    await work();
  } finally {
    form.ariaBusy = "false";
  }
}
