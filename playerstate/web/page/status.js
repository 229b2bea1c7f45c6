/** Whether the server is there and well, in words: to be seen and to be heard. */

import { span } from "./format.js";

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  unwell: "Not ready",
  gone: "Server is gone",
  refused: "Not fed",
  token: "Token needed",
  outdated: "Load again",
};

export class Status {
  constructor({ pill, notice, announce }) {
    this.pill = pill;
    this.notice = notice;
    this.announce = announce;
    this.state = { name: "connecting", why: "" };
    this.ready = { ready: true, why: "" };
    this.heardAt = performance.now();
    this.shown = "";
    setInterval(() => this.#show(), 500);
  }

  changed(state) {
    this.state = state;
    this.#show();
  }

  heard(gauges) {
    this.heardAt = performance.now();
    this.ready = gauges;
    this.#show();
  }

  get name() {
    return this.state.name === "live" && !this.ready.ready ? "unwell" : this.state.name;
  }

  #show() {
    const name = this.name;
    document.body.dataset.state = name;
    document.title = name === "live" ? "playerstate" : `${WORDS[name]}: playerstate`;
    this.pill.querySelector(".word").textContent = WORDS[name];
    const text = this.#notice(name);
    this.notice.hidden = text === "";
    if (this.notice.firstElementChild.textContent !== text) {
      this.notice.firstElementChild.textContent = text;
    }
    this.#announce(name);
  }

  #notice(name) {
    const { why, retryAt } = this.state;
    const again = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    const next = again > 0 ? `Trying again in ${again} s.` : "Trying again now.";
    if (name === "gone") {
      const silent = span((performance.now() - this.heardAt) / 1000);
      return `The server is gone${why ? `: ${why}` : ""}. Last heard of ${silent} ago. ${next}`;
    }
    if (name === "refused") return `The server does not feed this page: ${why}. ${next}`;
    if (name === "unwell") return `The server is not ready: ${this.ready.why}.`;
    if (name === "token") return "This server shows nothing without a token that it knows.";
    if (name === "outdated") return why;
    return "";
  }

  /** Say a change once; counting seconds aloud would be noise. */
  #announce(name) {
    if (name === this.shown) return;
    const from = this.shown;
    this.shown = name;
    if (name === "connecting") return;
    const words = {
      live: from && from !== "connecting" ? "The server is back." : "Connected to the server.",
      unwell: `The server is not ready: ${this.ready.why}`,
      gone: "The server is gone. Trying again.",
      refused: `The server does not feed this page: ${this.state.why}`,
      token: "A token is needed.",
      outdated: this.state.why,
    };
    this.announce.textContent = words[name];
  }
}
