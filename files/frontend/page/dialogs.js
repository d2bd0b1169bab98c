// Editing and deleting: each asks again when somebody else was faster.

import { ask, ifUnchanged, sending } from "./api.js";
import { byId, part, setText, whileBusy } from "./dom.js";
import { clearMarks, draftOf, fill, markRefused } from "./fields.js";
import { drawItem } from "./item.js";

class ItemDialog {
  // `done` is the verb for what `send(item, form)` asks the api to do.
  constructor(id, done, send) {
    this.dialog = byId(id);
    this.form = this.dialog.querySelector("form");
    this.present = this.dialog.querySelector(".present");
    this.done = done;
    this.send = send;
    part(this.dialog, "cancel").addEventListener("click", () => this.dialog.close());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      whileBusy(this.form, () => this.submit());
    });
  }

  // `finish` is called with a sentence once it is done.
  open(item, finish) {
    this.item = item;
    this.finish = finish;
    clearMarks(this.form);
    this.say("");
    this.present.hidden = true;
    this.dialog.showModal();
  }

  say(text) {
    setText(this.dialog.querySelector(".message"), text);
  }

  close(sentence) {
    this.dialog.close();
    this.finish(sentence);
  }

  async submit() {
    const answer = await this.send(this.item, this.form);
    if (answer.ok) {
      const { name } = answer.body ?? this.item;
      this.close(`“${name}” is ${this.done} by api ${answer.replica}.`);
    } else if (answer.status === 412) {
      await this.compare();
    } else if (answer.status === 404) {
      this.sayItIsGone();
    } else {
      markRefused(this.form, answer.errors);
      const known = answer.status ? `Not ${this.done}` : `Not known whether it is ${this.done}`;
      this.say(`${known}: ${answer.detail}`);
    }
  }

  // The next attempt is against the version shown here.
  async compare() {
    const { ok, status, body, detail } = await ask(`/items/${this.item.id}`);
    if (status === 404) return this.sayItIsGone();
    if (!ok) return this.say(`Not ${this.done}: changed meanwhile; cannot be read now: ${detail}`);
    if (this.isWanted(body)) return this.close(`“${body.name}” is ${this.done}.`);
    this.item = body;
    drawItem(this.present, body);
    this.present.hidden = false;
    this.say(`Not ${this.done}: somebody else changed it meanwhile. ${this.nextStep}`);
  }
}

class EditDialog extends ItemDialog {
  nextStep = "Saving again replaces the present text by yours.";

  open(item, finish) {
    fill(this.form, item);
    super.open(item, finish);
  }

  // An attempt whose answer was lost may have been the one that changed it.
  isWanted({ name, note }) {
    const wanted = draftOf(this.form);
    return name === wanted.name.trim() && (note ?? "") === (wanted.note ?? "");
  }

  sayItIsGone() {
    this.say("Not saved: somebody else deleted it meanwhile. Your text is still here.");
  }
}

class DeleteDialog extends ItemDialog {
  nextStep = "Delete the present text nevertheless?";

  open(item, finish) {
    setText(byId("delete-name"), item.name);
    super.open(item, finish);
  }

  isWanted() {
    return false;
  }

  sayItIsGone() {
    this.close(`“${this.item.name}” was deleted already.`);
  }
}

const edit = new EditDialog("edit", "saved", (item, form) =>
  ask(`/items/${item.id}`, sending("PUT", draftOf(form), ifUnchanged(item))),
);
const remove = new DeleteDialog("delete", "deleted", (item) =>
  ask(`/items/${item.id}`, { method: "DELETE", headers: ifUnchanged(item) }),
);

export const openEdit = (item, finish) => edit.open(item, finish);
export const openDelete = (item, finish) => remove.open(item, finish);
