/**
 * The trails, on a canvas of their own that fades with each picture, so that a picture costs one path
 * however long the trails are.  While the view moves, the canvas is moved with it, and drawn anew from
 * the kept movements once the view rests.
 */

/** What a picture leaves of the strength of those before. */
const KEPT = 0.87;
const STRENGTH = 0.75;
/** Milliseconds that the view must rest. */
const REST = 120;

export class Trails {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d");
    this.ratio = 1;
    this.colour = "#888";
    this.view = null; // that the canvas was drawn for
    this.seen = null;
    this.movedAt = 0;
  }

  resize(width, height, ratio) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.ratio = ratio;
    this.view = null;
  }

  recolour(colour) {
    this.colour = colour;
    this.view = null;
  }

  clear() {
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** The newest picture has ended: fade, and add the piece before it, which the players are past. */
  add(crowd) {
    const piece = crowd.trail.at(-2);
    if (!this.view || !piece) return;
    this.#fade();
    this.#stroke(piece, this.view, STRENGTH);
  }

  /** Draw all anew where the view rests elsewhere; whether what is drawn is for this view. */
  settle(crowd, view, now) {
    if (this.view?.equals(view)) return true;
    if (!this.seen?.equals(view)) {
      this.seen = view.copy();
      this.movedAt = now;
    }
    if (this.view && now - this.movedAt < REST) return false;
    this.view = view.copy();
    this.clear();
    const pieces = crowd.trail.slice(0, -1);
    pieces.forEach((piece, at) => {
      this.#stroke(piece, view, STRENGTH * KEPT ** (pieces.length - 1 - at));
    });
    return true;
  }

  draw(context, view) {
    if (!this.view || !this.canvas.width) return;
    const was = this.view;
    const left = view.left(was.worldX(0));
    const top = view.top(was.worldY(0));
    const width = (was.width * view.scaleX) / was.scaleX;
    const height = (was.height * view.scaleY) / was.scaleY;
    context.drawImage(this.canvas, left, top, width, height);
  }

  /** The way of each from the picture before to where they are shown. */
  drawNewest(context, crowd, view, part) {
    const piece = crowd.trail.at(-1);
    if (!piece?.n) return;
    context.beginPath();
    const { ends } = piece;
    for (let at = 0; at < piece.n; at += 4) {
      const x = ends[at] + (ends[at + 2] - ends[at]) * part;
      const y = ends[at + 1] + (ends[at + 3] - ends[at + 1]) * part;
      context.moveTo(view.left(ends[at]), view.top(ends[at + 1]));
      context.lineTo(view.left(x), view.top(y));
    }
    context.globalAlpha = STRENGTH;
    context.strokeStyle = this.colour;
    context.lineWidth = 1.5;
    context.stroke();
    context.globalAlpha = 1;
  }

  #fade() {
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalCompositeOperation = "destination-out";
    context.globalAlpha = 1 - KEPT;
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-over";
    context.globalAlpha = 1;
  }

  #stroke(piece, view, strength) {
    if (!piece.n) return;
    const { context } = this;
    const { ends } = piece;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.beginPath();
    for (let at = 0; at < piece.n; at += 4) {
      context.moveTo(view.left(ends[at]), view.top(ends[at + 1]));
      context.lineTo(view.left(ends[at + 2]), view.top(ends[at + 3]));
    }
    context.globalAlpha = strength;
    context.strokeStyle = this.colour;
    context.lineWidth = 1.5;
    context.stroke();
    context.globalAlpha = 1;
  }
}
