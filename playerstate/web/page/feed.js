/** The feed: opened, read, and opened again when the server is gone. */

import { authorization, refusal, Refused } from "./api.js";
import { FORMAT, FrameReader, readJson, readPlayers } from "./frames.js";

/** Milliseconds without a byte after which the server counts as gone; four frames come a second. */
const SILENCE = 4000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;
/** Milliseconds out of sight after which the page stops asking for pictures. */
const HIDDEN = 30000;

export class Feed {
  /**
   * `listener` has a method for each frame (start, gauges, players), and `changed(state)`, whose
   * name is connecting, live, gone, refused, token or outdated, with `why` in words and, of gone and
   * refused, `retryAt`.
   */
  constructor(token, listener) {
    this.token = token;
    this.listener = listener;
    this.query = {};
    this.controller = null;
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  /** Open, or open again with another query. */
  open(query = this.query) {
    this.close();
    this.query = query;
    this.controller = new AbortController();
    this.#run(this.controller.signal);
  }

  close() {
    this.controller?.abort();
    this.controller = null;
  }

  #seen() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.#sleep(), HIDDEN);
    else if (this.asleep) this.open();
    if (!document.hidden) this.asleep = false;
  }

  #sleep() {
    this.asleep = this.controller !== null;
    this.close();
  }

  async #run(signal) {
    let pause = FIRST_PAUSE;
    let why = "";
    this.listener.changed({ name: "connecting", why: "" });
    while (!signal.aborted) {
      let name = "gone";
      try {
        const ended = await this.#read(signal, () => {
          pause = FIRST_PAUSE;
          why = "";
        });
        why = ended || why;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refused && error.status === 401) {
          this.controller = null;
          return this.listener.changed({ name: "token", why: error.message });
        }
        if (error instanceof Outdated) {
          this.controller = null;
          return this.listener.changed({ name: "outdated", why: error.message });
        }
        if (error instanceof Refused) {
          name = "refused";
          why = error.message;
        }
      }
      if (signal.aborted) return;
      const wait = pause * (1 + Math.random() / 4);
      this.listener.changed({ name, why, retryAt: performance.now() + wait });
      await sleep(wait, signal);
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  }

  /** Read one feed to its end; why the server ended it, or empty where it did not say. */
  async #read(signal, onFrame) {
    const broken = new AbortController();
    const giveUp = () => broken.abort();
    signal.addEventListener("abort", giveUp);
    let silence = setTimeout(giveUp, SILENCE);
    try {
      const answer = await fetch(`feed?${new URLSearchParams(this.query)}`, {
        headers: authorization(this.token()),
        signal: broken.signal,
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
      if (!answer.ok) throw await refusal(answer);
      const reader = answer.body.getReader();
      const frames = new FrameReader();
      let start = null;
      for (;;) {
        const { done, value } = await reader.read();
        if (signal.aborted || done) return "";
        clearTimeout(silence);
        silence = setTimeout(giveUp, SILENCE);
        for (const { kind, body } of frames.take(value)) {
          if (kind === "E") return readJson(body).why;
          if (kind === "S") start = this.#start(readJson(body));
          else if (kind === "G") this.listener.gauges(readJson(body));
          else if (kind === "P") this.listener.players(readPlayers(body, start.axes !== null));
          onFrame();
        }
      }
    } finally {
      clearTimeout(silence);
      signal.removeEventListener("abort", giveUp);
      broken.abort();
    }
  }

  #start(start) {
    if (start.format !== FORMAT) {
      throw new Outdated(`the server is another version, ${start.version}; load this page again`);
    }
    this.listener.changed({ name: "live", why: "" });
    this.listener.start(start);
    return start;
  }
}

class Outdated extends Error {}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}
