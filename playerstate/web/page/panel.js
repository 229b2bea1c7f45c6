/** One player: all fields, and what who may write can do. */

import { Refused } from "./api.js";
import { span } from "./format.js";

const EVERY = 1000;
const EVERY_OFFLINE = 5000;

export class Panel {
  /** `on` is told: closed(), centred(isOn), token(), said(text). */
  constructor(root, api, on) {
    this.root = root;
    this.api = api;
    this.on = on;
    this.id = null;
    this.fields = [];
    this.rows = new Map();
    this.mayWrite = false;
    this.parts = Object.fromEntries(
      [...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
    );
    const { close, centre, undo, kick, form, token } = this.parts;
    token.addEventListener("click", () => this.on.token());
    close.addEventListener("click", () => this.close());
    root.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    centre.addEventListener("click", () => {
      this.#press(centre.getAttribute("aria-pressed") !== "true");
      this.on.centred(centre.getAttribute("aria-pressed") === "true");
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save();
    });
    undo.addEventListener("click", () => this.#undo());
    kick.addEventListener("click", () => this.#kick());
    kick.addEventListener("blur", () => this.#disarm());
  }

  /** The fields of the state class, and whether they may be changed here. */
  start(fields, mayWrite) {
    const same = JSON.stringify(fields) === JSON.stringify(this.fields);
    if (same && mayWrite === this.mayWrite) return;
    this.fields = fields;
    this.mayWrite = mayWrite;
    this.#build();
    if (this.player) this.#show(this.player);
  }

  /** Show a player, by session id. */
  open(id) {
    if (id === this.id) return;
    this.id = id;
    this.player = null;
    this.root.hidden = false;
    document.body.dataset.panel = "open";
    this.parts.name.replaceChildren(make("small", { textContent: "Player" }), String(id));
    this.parts.marks.replaceChildren();
    this.parts.updated.textContent = "";
    this.#press(false);
    this.#say("");
    this.#build();
    this.parts.body.hidden = true;
    this.#refresh();
  }

  close() {
    if (this.id === null) return;
    this.id = null;
    clearTimeout(this.timer);
    this.root.hidden = true;
    delete document.body.dataset.panel;
    this.on.closed();
  }

  /** Which way the map is: whether it keeps the player in the middle. */
  centred(isOn) {
    this.#press(isOn);
  }

  /** Whether the server is there: without it nothing can be asked. */
  live(isLive) {
    this.isLive = isLive;
    this.parts.set.disabled = !isLive;
    if (isLive && this.id !== null) this.#refresh();
  }

  async #refresh() {
    clearTimeout(this.timer);
    const id = this.id;
    if (!this.isLive) return;
    try {
      const player = await this.api.get(`players/${id}`);
      if (id !== this.id) return;
      this.#show(player);
      if (this.unfound) this.#say("");
      this.unfound = false;
    } catch (error) {
      if (id !== this.id) return;
      this.unfound = true;
      this.#say(error.message, true);
    }
    const wait = this.player?.online === false ? EVERY_OFFLINE : EVERY;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#refresh(), wait);
  }

  #build() {
    this.rows.clear();
    this.parts.fields.replaceChildren(...this.fields.map((field) => this.#row(field)));
    this.parts.actions.hidden = !this.mayWrite;
    this.parts.readonly.hidden = this.mayWrite;
    this.#changed();
  }

  #row(field) {
    const row = make("div", { className: "field" });
    const id = `field-${field.name}`;
    const label = make(this.mayWrite ? "label" : "span", { textContent: field.name });
    const about = [field.kind];
    if (field.server_owned) about.push("server-owned");
    if (field.transient) about.push("not stored");
    const head = make("div", { className: "head" });
    head.append(label, make("span", { className: "about", textContent: about.join(" · ") }));
    const control = this.mayWrite ? this.#control(field, id) : make("output", { id });
    const note = make("p", { className: "note", id: `${id}-note` });
    row.append(head, control, note);
    if (this.mayWrite) {
      label.htmlFor = id;
      control.setAttribute("aria-describedby", note.id);
      control.addEventListener("input", () => {
        this.#fieldError(field.name, "");
        this.#changed();
      });
    }
    this.rows.set(field.name, { field, row, control, note, saved: null });
    return row;
  }

  #control(field, id) {
    if (field.kind === "bool") return make("input", { id, type: "checkbox" });
    const control = make("input", { id, type: "text", autocomplete: "off", spellcheck: false });
    if (field.kind !== "text") control.inputMode = field.kind === "int" ? "numeric" : "decimal";
    control.title = field.allowed;
    return control;
  }

  #show(player) {
    this.player = player;
    this.parts.body.hidden = false;
    this.parts.marks.replaceChildren(
      badge(player.online ? "online" : "offline", player.online ? "Online" : "Offline"),
      badge(player.saved ? "saved" : "unsaved", player.saved ? "Saved" : "Unsaved"),
    );
    const ago = Date.now() / 1000 - player.updated_at / 1e6;
    this.parts.updated.textContent = player.updated_at
      ? `changed ${ago < 1.5 ? "just now" : `${span(Math.max(0, ago))} ago`}`
      : "never changed";
    this.parts.kick.hidden = !player.online;
    for (const { field, control, saved } of this.rows.values()) {
      const row = this.rows.get(field.name);
      const value = player.state[field.name];
      const isTouched = this.mayWrite && this.#isTouched(row);
      row.saved = value;
      row.row.hidden = value === undefined;
      if (!this.mayWrite) control.textContent = String(value);
      else if (!isTouched) put(control, value);
      else if (saved !== value) this.#fieldNow(row, value);
    }
    this.#changed();
  }

  #fieldNow(row, value) {
    if (!row.row.classList.contains("wrong")) row.note.textContent = `now ${value}`;
  }

  #isTouched({ control, saved }) {
    if (saved === null || saved === undefined) return false;
    return control.type === "checkbox" ? control.checked !== saved : control.value !== String(saved);
  }

  #changed() {
    const touched = this.mayWrite && [...this.rows.values()].some((row) => this.#isTouched(row));
    this.parts.save.disabled = !touched;
    this.parts.undo.hidden = !touched;
  }

  #undo() {
    for (const row of this.rows.values()) {
      put(row.control, row.saved);
      this.#fieldError(row.field.name, "");
    }
    this.#say("");
    this.#changed();
  }

  async #save() {
    const id = this.id;
    const touched = [...this.rows.values()].filter((row) => this.#isTouched(row));
    if (!touched.length) return;
    for (const { field } of touched) this.#fieldError(field.name, "");
    const fields = Object.fromEntries(touched.map((row) => [row.field.name, taken(row)]));
    await this.#act("Saving…", async () => {
      const player = await this.api.patch(`players/${id}`, fields);
      if (id !== this.id) return;
      for (const row of touched) put(row.control, player.state[row.field.name]);
      for (const row of touched) row.saved = player.state[row.field.name];
      this.#show(player);
      this.#say(`Saved: ${touched.map(({ field }) => field.name).join(", ")}.`);
    });
  }

  async #kick() {
    const { kick } = this.parts;
    if (!kick.classList.contains("armed")) {
      kick.classList.add("armed");
      kick.textContent = "Kick now?";
      return;
    }
    this.#disarm();
    const id = this.id;
    await this.#act("Kicking…", async () => {
      await this.api.post(`players/${id}/kick`);
      if (id !== this.id) return;
      this.#say("Kicked; the player's last state is saved.");
      this.#refresh();
    });
  }

  #disarm() {
    this.parts.kick.classList.remove("armed");
    this.parts.kick.textContent = "Kick";
  }

  async #act(saying, act) {
    this.parts.set.disabled = true;
    this.#say(saying);
    try {
      await act();
    } catch (error) {
      const row = error instanceof Refused && this.rows.get(error.field);
      if (row) {
        this.#fieldError(error.field, `must be ${error.allowed}`);
        this.#say(`Not saved: ${error.message}`, true);
      } else this.#say(error.message, true);
      this.parts.set.disabled = !this.isLive;
      if (row) row.control.focus();
    }
    this.parts.set.disabled = !this.isLive;
  }

  #fieldError(name, error) {
    const { row, note, control } = this.rows.get(name);
    row.classList.toggle("wrong", error !== "");
    note.textContent = error;
    if (error) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  }

  #say(text, isError = false) {
    this.parts.said.textContent = text;
    this.parts.said.classList.toggle("error", isError);
    if (text) this.on.said(text);
  }

  #press(isOn) {
    this.parts.centre.setAttribute("aria-pressed", String(isOn));
  }
}

/** What a control says, as the server takes it: what is no number it refuses, and names the field. */
function taken({ field, control }) {
  if (control.type === "checkbox") return control.checked;
  const text = control.value;
  if (field.kind === "float" && text.trim() && Number.isFinite(Number(text))) return Number(text);
  return field.kind === "int" ? text.trim() : text;
}

function put(control, value) {
  if (control.type === "checkbox") control.checked = value === true;
  else if (control.value !== String(value ?? "")) control.value = String(value ?? "");
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

/** A word with the mark that the map has for it. */
export function badge(kind, text) {
  const found = make("span", { className: `badge ${kind}` });
  found.append(make("i", { className: `mark ${kind}` }), text);
  return found;
}
