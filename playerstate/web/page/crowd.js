/** The players of the newest picture, where they came from, and the trails of their last seconds. */

import { LEAVING, UNSAVED } from "./frames.js";

/** Pictures whose movements make a trail: six seconds. */
const TRAIL = 24;

export const SAVED_KIND = 0;
export const UNSAVED_KIND = 1;
export const LEAVING_KIND = 2;

export class Crowd {
  constructor() {
    this.clear();
  }

  clear() {
    this.n = 0;
    this.stride = 1;
    this.ids = new BigInt64Array(0);
    this.x = this.y = this.fromX = this.fromY = new Float32Array(0);
    this.kinds = new Uint8Array(0);
    this.counts = [0, 0, 0];
    this.at = new Map(); // by session id, made when first asked for
    this.indexed = true;
    this.bySlot = new Int32Array(0);
    this.trail = []; // oldest first: {n, ends}, ends as x, y, x, y
    this.changed = false;
    this.moved = false;
  }

  /** Take in a picture. */
  take(picture) {
    const before = { n: this.n, ids: this.ids, x: this.x, y: this.y };
    this.n = picture.n;
    this.stride = picture.stride;
    this.ids = picture.ids;
    this.x = picture.x;
    this.y = picture.y;
    this.indexed = false;
    this.#sort(picture.flags);
    if (picture.x) this.#follow(before, picture.slots);
    this.#index(picture.slots);
  }

  #sort(flags) {
    const kinds = new Uint8Array(this.n);
    const counts = [0, 0, 0];
    for (let i = 0; i < this.n; i++) {
      const kind = flags[i] & LEAVING ? LEAVING_KIND : flags[i] & UNSAVED;
      kinds[i] = kind;
      counts[kind]++;
    }
    this.changed = counts.some((number, kind) => number !== this.counts[kind]);
    this.kinds = kinds;
    this.counts = counts;
  }

  /** Find out where each was before, and keep the way as part of the trails. */
  #follow(before, slots) {
    const fromX = new Float32Array(this.n);
    const fromY = new Float32Array(this.n);
    const piece = this.trail.length >= TRAIL ? this.trail.shift() : { n: 0, ends: null };
    if (!piece.ends || piece.ends.length < 4 * this.n) piece.ends = new Float32Array(4 * this.n);
    const ends = piece.ends;
    let at = 0;
    this.changed ||= before.n !== this.n;
    for (let i = 0; i < this.n; i++) {
      const was = slots[i] < this.bySlot.length ? this.bySlot[slots[i]] : -1;
      const x = this.x[i];
      const y = this.y[i];
      if (was < 0 || was >= before.n || before.ids[was] !== this.ids[i]) {
        fromX[i] = x;
        fromY[i] = y;
        this.changed = true;
        continue;
      }
      fromX[i] = before.x[was];
      fromY[i] = before.y[was];
      if (fromX[i] !== x || fromY[i] !== y) {
        ends[at++] = fromX[i];
        ends[at++] = fromY[i];
        ends[at++] = x;
        ends[at++] = y;
      }
    }
    piece.n = at;
    this.fromX = fromX;
    this.fromY = fromY;
    this.moved = at > 0;
    this.trail.push(piece);
  }

  #index(slots) {
    let highest = 0;
    for (let i = 0; i < this.n; i++) if (slots[i] > highest) highest = slots[i];
    if (this.bySlot.length <= highest) this.bySlot = new Int32Array(2 * (highest + 1));
    this.bySlot.fill(-1);
    for (let i = 0; i < this.n; i++) this.bySlot[slots[i]] = i;
  }

  /** Where in the columns a player is; -1 for nowhere. */
  find(id) {
    if (!this.indexed) {
      this.at.clear();
      for (let i = 0; i < this.n; i++) this.at.set(this.ids[i], i);
      this.indexed = true;
    }
    return this.at.get(id) ?? -1;
  }

  /** Where player `i` is, this part of the way from the picture before to the newest. */
  shownX(i, part) {
    return this.fromX[i] + (this.x[i] - this.fromX[i]) * part;
  }

  shownY(i, part) {
    return this.fromY[i] + (this.y[i] - this.fromY[i]) * part;
  }

  /**
   * The box that holds the players, as {left, right, low, high}; null without players.  Of many, one
   * in a hundred on each side may lie outside if far off, so that none makes all others tiny.
   */
  bounds() {
    if (!this.n || !this.x) return null;
    const [left, right] = spread(this.x);
    const [low, high] = spread(this.y);
    return { left, right, low, high };
  }
}

const FEW = 100;
/** How far beyond the others, in parts of their spread, a player still counts. */
const STRAY = 0.4;

function spread(values) {
  if (values.length <= FEW) {
    let low = Infinity;
    let high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }
  const sorted = values.slice().sort();
  const out = Math.floor(values.length / FEW);
  const low = sorted[out];
  const high = sorted[sorted.length - 1 - out];
  const margin = (high - low) * STRAY;
  return [Math.max(sorted[0], low - margin), Math.min(sorted[sorted.length - 1], high + margin)];
}
