/**
 * The token: asked for where the server wants one, kept for this tab, and on this device only where
 * the operator ticks so.  It is sent in a header, and is never part of an address.
 */

const KEY = "playerstate.token";

function storage(name) {
  try {
    return window[name];
  } catch {
    return null; // blocked: the token lives as long as the page
  }
}

export class Token {
  /** `dialog` asks for it; `onChange` is called once there is another, or none any more. */
  constructor(dialog, onChange) {
    this.dialog = dialog;
    this.onChange = onChange;
    this.value = this.#read("sessionStorage") || this.#read("localStorage");
    this.form = dialog.querySelector("form");
    this.input = this.form.elements.token;
    this.remember = this.form.elements.remember;
    this.error = dialog.querySelector(".error");
    this.form.addEventListener("submit", (event) => this.#submitted(event));
    this.form.elements.forget.addEventListener("click", () => this.#forgotten());
    this.form.elements.cancel.addEventListener("click", () => dialog.close());
    this.input.addEventListener("input", () => this.#say(""));
  }

  /** Ask for it; `why` is what the server says of the one it got. */
  ask(why = "") {
    if (this.dialog.open) return;
    this.input.value = "";
    this.remember.checked = this.#read("localStorage") !== "";
    this.form.elements.forget.hidden = this.value === "";
    this.#say(why);
    this.dialog.showModal();
    this.input.focus();
  }

  /** The server does not know the token: it is of no more use. */
  refused() {
    this.#keep("", false);
  }

  #submitted(event) {
    event.preventDefault();
    const value = this.input.value.trim();
    if (!/^[\x21-\x7e]+$/.test(value)) {
      this.#say("A token has no spaces and only plain letters, digits and signs.");
      this.input.focus();
      return;
    }
    this.#keep(value, this.remember.checked);
    this.dialog.close();
    this.onChange();
  }

  #forgotten() {
    this.#keep("", false);
    this.dialog.close();
    this.onChange();
  }

  #keep(value, onDevice) {
    this.value = value;
    this.input.value = "";
    this.#write("sessionStorage", onDevice ? "" : value);
    this.#write("localStorage", onDevice ? value : "");
  }

  #say(error) {
    this.error.textContent = error;
    this.input.setAttribute("aria-invalid", String(error !== ""));
  }

  #read(name) {
    try {
      return storage(name)?.getItem(KEY) || "";
    } catch {
      return "";
    }
  }

  #write(name, value) {
    try {
      if (value) storage(name)?.setItem(KEY, value);
      else storage(name)?.removeItem(KEY);
    } catch {
      // Full or blocked: the token lives as long as the page.
    }
  }
}
