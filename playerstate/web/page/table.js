/** The players as a table: the map's counterpart without sight, and for classes without axes. */

import { badge } from "./panel.js";

const EVERY = 1000;
const ROWS = 25;

export class PlayerTable {
  constructor(root, api, onPick) {
    this.root = root;
    this.api = api;
    this.onPick = onPick;
    this.pages = ["0"]; // after which session id each page begins
    this.body = root.querySelector("tbody");
    this.head = root.querySelector("thead tr");
    this.said = root.querySelector(".said");
    this.previous = root.querySelector("[data-page=previous]");
    this.next = root.querySelector("[data-page=next]");
    this.previous.addEventListener("click", () => {
      this.pages.pop();
      this.#refresh();
    });
    this.next.addEventListener("click", () => {
      this.pages.push(this.after);
      this.#refresh();
    });
  }

  start(fields) {
    this.fields = fields;
    const names = ["Player", "State", ...fields.map((field) => field.name)];
    this.head.replaceChildren(
      ...names.map((name, at) => {
        const cell = Object.assign(document.createElement("th"), { textContent: name });
        cell.scope = "col";
        if (at > 1 && /float|int/.test(fields[at - 2].kind)) cell.className = "number";
        return cell;
      }),
    );
    this.body.replaceChildren();
  }

  /** Whether it is on view and the server is there. */
  show(isOn) {
    if (isOn === this.isOn) return;
    this.isOn = isOn;
    clearTimeout(this.timer);
    if (isOn) this.#refresh();
  }

  async #refresh() {
    clearTimeout(this.timer);
    try {
      const after = this.pages.at(-1);
      const found = await this.api.get(`players?online=1&limit=${ROWS}&after=${after}`);
      if (after !== this.pages.at(-1)) return;
      this.#fill(found);
    } catch (error) {
      this.said.textContent = error.message;
    }
    clearTimeout(this.timer);
    if (this.isOn) this.timer = setTimeout(() => this.#refresh(), EVERY);
  }

  #fill({ players, after }) {
    if (!players.length && this.pages.length > 1) {
      this.pages.pop();
      return;
    }
    this.after = after;
    this.previous.disabled = this.pages.length < 2;
    this.next.disabled = after === null;
    this.said.textContent = players.length ? `Page ${this.pages.length}` : "Nobody is online.";
    // Rows are kept, so that the focus stays on a button that is pressed.
    while (this.body.rows.length > players.length) this.body.deleteRow(-1);
    while (this.body.rows.length < players.length) this.#addRow();
    players.forEach((player, at) => this.#fillRow(this.body.rows[at], player));
  }

  #addRow() {
    const row = this.body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.className = "link";
    button.addEventListener("click", () => this.onPick(BigInt(row.dataset.id)));
    head.append(button);
    row.append(head);
    for (let i = 0; i <= this.fields.length; i++) row.insertCell();
  }

  #fillRow(row, { session_id, saved, state }) {
    row.dataset.id = session_id;
    row.dataset.saved = String(saved);
    const [head, mark, ...cells] = row.cells;
    const button = head.firstChild;
    if (button.textContent !== session_id) button.textContent = session_id;
    const kind = saved ? "saved" : "unsaved";
    if (mark.dataset.kind !== kind) {
      mark.dataset.kind = kind;
      mark.replaceChildren(badge(kind, saved ? "Saved" : "Unsaved"));
    }
    this.fields.forEach((field, at) => {
      const value = shown(state[field.name]);
      cells[at].dataset.field = field.name;
      if (/float|int/.test(field.kind)) cells[at].className = "number";
      if (cells[at].textContent !== value) cells[at].textContent = value;
    });
  }
}

function shown(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toFixed(3)));
  return String(value ?? "");
}
