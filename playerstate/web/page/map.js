/** The map: players, their trails and a grid, drawn on one canvas. */

import { coordinate } from "./format.js";
import { gestures } from "./gestures.js";
import { Marks } from "./marks.js";
import { Trails } from "./trails.js";
import { colours, onTheme } from "./theme.js";
import { gridStep, View } from "./view.js";

/** Pixels around a player at which a click still means the player. */
const NEAR = 14;
const SLIDE = 350;
const NAMES = ["map", "grid", "ink", "muted", "saved", "unsaved", "trail", "surface", "line"];
/** Up to how many players the end of each trail is drawn anew in each frame. */
const FEW = 1500;

export class PlayerMap {
  /** `onPick` is told the session id of a player who is clicked, or null. */
  constructor(canvas, crowd, onPick, onMode) {
    this.canvas = canvas;
    this.crowd = crowd;
    this.onPick = onPick;
    this.onMode = onMode;
    this.context = canvas.getContext("2d", { alpha: false });
    this.view = new View();
    this.slide = null;
    this.fits = true;
    this.selected = null;
    this.hovered = null;
    this.keepsSelectedCentred = false;
    this.pictureAt = 0;
    this.interval = 250;
    this.isDirty = true;
    this.drawn = 0;
    this.outside = 0;
    this.trails = new Trails();
    this.marks = new Marks();
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.#resize()).observe(canvas);
    onTheme(() => this.#recolour());
    gestures(canvas, {
      pan: (right, down) => this.#changed((view) => view.pan(right, down)),
      zoom: (factor, left, top) => this.zoom(factor, left, top),
      fit: () => this.fit(),
      pick: (left, top) => this.onPick(this.playerAt(left, top)),
      hover: (left, top) => this.#hover(left, top),
      leave: () => this.onPick(null),
    });
    this.#recolour();
    requestAnimationFrame((now) => this.#frame(now));
  }

  /** The crowd holds a new picture. */
  pictured() {
    const now = performance.now();
    const since = now - this.pictureAt;
    if (since < 1000) this.interval += (Math.min(500, Math.max(100, since)) - this.interval) / 8;
    this.pictureAt = now;
    this.trails.add(this.crowd, this.view);
    this.isDirty = true;
    if (this.fits) this.#fitIfNeeded();
  }

  /** Another world: other axes, or another server. */
  cleared() {
    this.trails.clear();
    this.fits = true;
    this.first = true;
    this.onMode();
    this.isDirty = true;
  }

  /** Show all players, now and from now on. */
  fit() {
    this.fits = true;
    this.keepsSelectedCentred = false;
    this.onMode();
    const box = this.crowd.bounds();
    if (box) this.#slideTo(this.view.fitted(box));
  }

  zoom(factor, left = this.view.width / 2, top = this.view.height / 2) {
    this.#changed((view) => view.zoom(factor, left, top), this.keepsSelectedCentred);
  }

  select(id) {
    this.selected = id;
    if (id === null) this.keepsSelectedCentred = false;
    this.isDirty = true;
  }

  /** Keep the selected player in the middle, or no longer. */
  centre(isOn) {
    this.keepsSelectedCentred = isOn;
    if (isOn) this.fits = false;
    this.onMode();
    this.isDirty = true;
  }

  /** The session id of the player nearest to a point of the canvas; null if none is near. */
  playerAt(left, top) {
    const { crowd, view } = this;
    const part = this.#part(performance.now());
    let nearest = NEAR * NEAR;
    let found = -1;
    for (let i = 0; i < crowd.n; i++) {
      const right = view.left(crowd.shownX(i, part)) - left;
      const down = view.top(crowd.shownY(i, part)) - top;
      const distance = right * right + down * down;
      if (distance <= nearest) {
        nearest = distance;
        found = i;
      }
    }
    return found < 0 ? null : crowd.ids[found];
  }

  /** Where a player is in the world and on the canvas, and what mark shows them; null if unseen. */
  whereIs(id) {
    const at = this.crowd.find(BigInt(id));
    if (at < 0 || !this.crowd.x) return null;
    const part = this.#part(performance.now());
    const { view, crowd } = this;
    return {
      x: crowd.x[at],
      y: crowd.y[at],
      left: view.left(crowd.shownX(at, part)),
      top: view.top(crowd.shownY(at, part)),
      mark: ["saved", "unsaved", "leaving"][crowd.kinds[at]],
    };
  }

  #changed(change, keepsCentred = false) {
    this.slide = null;
    this.fits = false;
    this.first = false;
    this.keepsSelectedCentred = keepsCentred;
    change(this.view);
    this.onMode();
    this.isDirty = true;
  }

  #fitIfNeeded() {
    const box = this.crowd.bounds();
    if (!box || this.slide) return;
    if (this.first) {
      this.first = false;
      this.view = this.view.fitted(box);
    } else if (!this.view.suits(box)) this.#slideTo(this.view.fitted(box));
  }

  #slideTo(view) {
    if (this.still.matches) {
      this.view = view;
    } else this.slide = { from: this.view.copy(), to: view, began: performance.now() };
    this.isDirty = true;
  }

  #hover(left, top) {
    const found = left === null ? null : this.playerAt(left, top);
    this.canvas.classList.toggle("over-player", found !== null);
    if (found !== this.hovered) this.isDirty = true;
    this.hovered = found;
  }

  #resize() {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth || !clientHeight) return;
    this.ratio = ratio;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.view.width = clientWidth;
    this.view.height = clientHeight;
    this.slide = null;
    this.trails.resize(this.canvas.width, this.canvas.height, ratio);
    if (this.fits) {
      const box = this.crowd.bounds();
      if (box) this.view = this.view.fitted(box);
    }
    this.marks.resize(this.canvas.width, this.canvas.height, ratio);
    this.isDirty = true;
    this.#draw(performance.now());
  }

  #recolour() {
    this.colours = colours(...NAMES);
    this.trails.recolour(this.colours.trail);
    this.marks.recolour(this.colours);
    this.isDirty = true;
  }

  /** How far on the way from the picture before to the newest the players are shown. */
  #part(now) {
    return this.still.matches ? 1 : Math.min(1, (now - this.pictureAt) / this.interval);
  }

  #frame(now) {
    requestAnimationFrame((next) => this.#frame(next));
    if (this.isDirty && this.ratio && this.canvas.clientWidth) this.#draw(now);
  }

  #draw(now) {
    const part = this.#part(now);
    this.#step(now, part);
    const isSettled = this.trails.settle(this.crowd, this.view, now);
    this.isDirty = !isSettled || this.slide !== null || (part < 1 && this.crowd.moved);
    this.drawn++;
    const { context } = this;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = this.colours.map;
    context.fillRect(0, 0, this.view.width, this.view.height);
    this.#drawGrid();
    this.trails.draw(context, this.view);
    if (this.crowd.n <= FEW) this.trails.drawNewest(context, this.crowd, this.view, part);
    this.outside = this.crowd.n - this.marks.stamp(this.crowd, this.view, part);
    context.drawImage(this.marks.canvas, 0, 0, this.view.width, this.view.height);
    if (this.hovered !== null && this.hovered !== this.selected) this.#drawLabel(this.hovered, part);
    if (this.selected !== null) this.#drawLabel(this.selected, part, true);
  }

  #step(now, part) {
    if (this.slide) {
      const done = Math.min(1, (now - this.slide.began) / SLIDE);
      const eased = 1 - (1 - Math.max(0, done)) ** 3;
      this.view = this.slide.from.towards(this.slide.to, eased);
      if (done === 1) this.slide = null;
    }
    if (this.keepsSelectedCentred) {
      const at = this.crowd.find(this.selected);
      if (at >= 0) {
        this.view.x = this.crowd.shownX(at, part);
        this.view.y = this.crowd.shownY(at, part);
      }
    }
  }

  #drawGrid() {
    const { context, view } = this;
    const stepX = gridStep(view.scaleX);
    const stepY = gridStep(view.scaleY);
    context.beginPath();
    const lines = [[], []];
    for (let k = Math.ceil(view.worldX(0) / stepX); k * stepX <= view.worldX(view.width); k++) {
      const left = Math.round(view.left(k * stepX)) + 0.5;
      context.moveTo(left, 0);
      context.lineTo(left, view.height);
      lines[0].push([left, coordinate(k * stepX, stepX)]);
      if (lines[0].length > 200) break;
    }
    for (let k = Math.ceil(view.worldY(view.height) / stepY); k * stepY <= view.worldY(0); k++) {
      const top = Math.round(view.top(k * stepY)) + 0.5;
      context.moveTo(0, top);
      context.lineTo(view.width, top);
      lines[1].push([top, coordinate(k * stepY, stepY)]);
      if (lines[1].length > 200) break;
    }
    context.strokeStyle = this.colours.grid;
    context.lineWidth = 1;
    context.stroke();
    context.font = "11px ui-sans-serif, system-ui, sans-serif";
    context.fillStyle = this.colours.muted;
    context.textBaseline = "bottom";
    for (const [left, text] of lines[0]) {
      if (left > 44) context.fillText(text, left + 4, view.height - 4);
    }
    for (const [top, text] of lines[1]) {
      if (top < view.height - 24) context.fillText(text, 6, top - 2);
    }
  }

  #drawLabel(id, part, isSelected = false) {
    const at = this.crowd.find(id);
    if (at < 0) return;
    const { context, view, crowd } = this;
    const left = view.left(crowd.shownX(at, part));
    const top = view.top(crowd.shownY(at, part));
    if (isSelected) {
      context.beginPath();
      context.arc(left, top, 13, 0, 2 * Math.PI);
      context.strokeStyle = this.colours.ink;
      context.lineWidth = 2;
      context.stroke();
    }
    const text = `${id}`;
    context.font = "600 12px ui-sans-serif, system-ui, sans-serif";
    const width = context.measureText(text).width + 14;
    const boxLeft = Math.max(4, Math.min(view.width - width - 4, left + 17));
    const boxTop = Math.max(4, Math.min(view.height - 26, top - 30));
    context.beginPath();
    context.roundRect(boxLeft, boxTop, width, 22, 5);
    context.fillStyle = isSelected ? this.colours.ink : this.colours.surface;
    context.fill();
    if (!isSelected) {
      context.strokeStyle = this.colours.line;
      context.lineWidth = 1;
      context.stroke();
    }
    context.fillStyle = isSelected ? this.colours.map : this.colours.ink;
    context.textBaseline = "middle";
    context.fillText(text, boxLeft + 7, boxTop + 11.5);
  }
}
