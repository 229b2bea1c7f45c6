/** The four figures that say whether all is well. */

import { chosen, count, rate, short, span } from "./format.js";

/** Milliseconds over which moves a second are counted. */
const OVER = 1000;
/** The part of a limit from which it is worth a look. */
const HIGH = 0.8;

export class Tiles {
  constructor(root) {
    this.root = root;
    this.counted = []; // {at, applied}, oldest first
  }

  start({ save_within_seconds, max_players }) {
    this.promise = save_within_seconds;
    this.most = max_players;
  }

  show(gauges) {
    const { players_online, players_leaving, queue_depth, queue_capacity } = gauges;
    const leaving = players_leaving ? `, ${count(players_leaving)} leaving` : "";
    this.#set("online", count(players_online), `of at most ${count(this.most)}${leaving}`);
    this.#meter("online", players_online, this.most);
    this.#set("moves", rate(this.#moves(gauges)), `${(gauges.applied < 1e6 ? count : short)(gauges.applied)} since the start`);
    const oldest = gauges.oldest_unsaved_seconds;
    this.#set("oldest", span(oldest), `${chosen(this.promise)} promised`);
    this.#meter("oldest", oldest, this.promise);
    this.#set("queue", count(queue_depth), `rows of ${count(queue_capacity)}`);
    this.#meter("queue", queue_depth, queue_capacity);
  }

  /** Moves a second, from two counts that lie about a second apart. */
  #moves({ at, applied }) {
    // Another server has counted less.
    if (this.counted.length && applied < this.counted.at(-1).applied) this.counted = [];
    this.counted.push({ at, applied });
    while (this.counted.length > 2 && at - this.counted[1].at >= OVER / 1000) this.counted.shift();
    const first = this.counted[0];
    return at > first.at ? (applied - first.applied) / (at - first.at) : 0;
  }

  #set(name, value, note) {
    const tile = this.root.querySelector(`[data-tile="${name}"]`);
    text(tile.querySelector(".value"), value);
    text(tile.querySelector(".note"), note);
  }

  #meter(name, value, limit) {
    const tile = this.root.querySelector(`[data-tile="${name}"]`);
    const part = limit > 0 ? value / limit : 0;
    tile.style.setProperty("--part", Math.min(1, part).toFixed(4));
    tile.dataset.level = part > 1 ? "over" : part >= HIGH ? "high" : "well";
    text(tile.querySelector(".level"), { over: "over the limit", high: "near the limit" }[tile.dataset.level] || "");
  }
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}
