/** What part of the world the map shows: from the world to the canvas and back.  y grows upwards. */

const PADDING = 36;
/** The least width of the world that is shown by itself, so that one player does not fill it. */
const LEAST_SPAN = 60;
/** Axes so unlike that one scale would make a line of the map get a scale each. */
const UNLIKE = 8;
const NEAREST = 1e4;
/** Below that the whole range of the numbers that come would be less than a pixel. */
const FARTHEST = 1e-38;

export class View {
  constructor() {
    this.width = 1;
    this.height = 1;
    this.x = 0;
    this.y = 0;
    this.scaleX = 1;
    this.scaleY = 1;
  }

  left(x) {
    return this.width / 2 + (x - this.x) * this.scaleX;
  }

  top(y) {
    return this.height / 2 - (y - this.y) * this.scaleY;
  }

  worldX(left) {
    return this.x + (left - this.width / 2) / this.scaleX;
  }

  worldY(top) {
    return this.y - (top - this.height / 2) / this.scaleY;
  }

  pan(right, down) {
    this.x -= right / this.scaleX;
    this.y += down / this.scaleY;
  }

  /** Zoom by a factor, so that what is at this point stays there. */
  zoom(factor, left, top) {
    const least = Math.max(FARTHEST / this.scaleX, FARTHEST / this.scaleY);
    const bounded = Math.max(least, Math.min(factor, NEAREST / this.scaleX, NEAREST / this.scaleY));
    const x = this.worldX(left);
    const y = this.worldY(top);
    this.scaleX *= bounded;
    this.scaleY *= bounded;
    this.x = x - (left - this.width / 2) / this.scaleX;
    this.y = y + (top - this.height / 2) / this.scaleY;
  }

  /** The view that shows a box. */
  fitted({ left, right, low, high }) {
    const view = this.copy();
    const spanX = Math.max(right - left, LEAST_SPAN, Math.abs(left) * 1e-5);
    const spanY = Math.max(high - low, LEAST_SPAN, Math.abs(low) * 1e-5);
    view.x = left / 2 + right / 2;
    view.y = low / 2 + high / 2;
    view.scaleX = Math.max(1, this.width - 2 * PADDING) / spanX;
    view.scaleY = Math.max(1, this.height - 2 * PADDING) / spanY;
    const ratio = spanX / spanY;
    if (ratio < UNLIKE && ratio > 1 / UNLIKE) {
      view.scaleX = view.scaleY = Math.min(view.scaleX, view.scaleY);
    }
    return view;
  }

  /** Whether a box lies inside, and is not so small that it should be shown larger. */
  suits(box) {
    const inside =
      this.left(box.left) >= 0 &&
      this.left(box.right) <= this.width &&
      this.top(box.high) >= 0 &&
      this.top(box.low) <= this.height;
    const fitted = this.fitted(box);
    return inside && fitted.scaleX < 1.6 * this.scaleX && fitted.scaleY < 1.6 * this.scaleY;
  }

  copy() {
    return Object.assign(new View(), this);
  }

  equals(other) {
    return (
      this.x === other.x &&
      this.y === other.y &&
      this.scaleX === other.scaleX &&
      this.scaleY === other.scaleY
    );
  }

  /** The view between this one and another; part 0 is this one. */
  towards(other, part) {
    const view = this.copy();
    view.scaleX = this.scaleX * (other.scaleX / this.scaleX) ** part;
    view.scaleY = this.scaleY * (other.scaleY / this.scaleY) ** part;
    view.x = this.x + (other.x - this.x) * part;
    view.y = this.y + (other.y - this.y) * part;
    return view;
  }
}

/** Steps of a grid, 1, 2 or 5 times a power of ten, at least so many pixels apart. */
export function gridStep(scale, pixels = 90) {
  const least = pixels / scale;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= least * 0.999);
}
