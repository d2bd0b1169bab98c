// The fields of an item's form: what was typed, and what was refused.

import { setText } from "./dom.js";

// The item as typed. An empty note is none.
export function draftOf(form) {
  const { name, note } = Object.fromEntries(new FormData(form));
  return note ? { name, note } : { name };
}

export function fill(form, { name, note }) {
  form.elements.namedItem("name").value = name;
  form.elements.namedItem("note").value = note ?? "";
}

export function clearMarks(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    setText(describing(field), "");
  }
}

// Says at each field why it was refused, and leads to the first of them.
export function markRefused(form, errors) {
  clearMarks(form);
  for (const { pointer, detail } of errors) {
    const field = form.elements.namedItem(pointer.replace(/^#?\//, ""));
    if (!field) continue;
    field.setAttribute("aria-invalid", "true");
    setText(describing(field), detail);
  }
  form.querySelector("[aria-invalid]")?.focus();
}

const describing = (field) => document.getElementById(field.getAttribute("aria-describedby"));
