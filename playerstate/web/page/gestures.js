/** What mouse, fingers and keys do on the map. */

/** Pixels that a press may wander and still be a click. */
const STILL = 5;
const STEP = 60;
const FACTOR = 1.4;

/** Tell `on` of gestures on an element: pan, zoom, fit, pick, hover, leave; in its own pixels. */
export function gestures(element, on) {
  const down = new Map();
  let wandered = 0;

  const place = (event) => {
    const box = element.getBoundingClientRect();
    return { left: event.clientX - box.left, top: event.clientY - box.top };
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    element.setPointerCapture(event.pointerId);
    if (!down.size) wandered = 0;
    down.set(event.pointerId, place(event));
  });

  element.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = down.get(event.pointerId);
    if (!before) return on.hover(now.left, now.top);
    wandered += Math.hypot(now.left - before.left, now.top - before.top);
    down.set(event.pointerId, now);
    if (down.size === 2) pinch(event.pointerId, before, now);
    else if (wandered > STILL) on.pan(now.left - before.left, now.top - before.top);
  });

  function pinch(moving, before, now) {
    const [other] = [...down].filter(([id]) => id !== moving).map(([, at]) => at);
    wandered += STILL;
    const was = Math.hypot(before.left - other.left, before.top - other.top);
    const is = Math.hypot(now.left - other.left, now.top - other.top);
    on.pan((now.left - before.left) / 2, (now.top - before.top) / 2);
    if (was > 0 && is > 0) on.zoom(is / was, (now.left + other.left) / 2, (now.top + other.top) / 2);
  }

  element.addEventListener("pointerup", (event) => {
    const at = place(event);
    if (down.delete(event.pointerId) && !down.size && wandered <= STILL) on.pick(at.left, at.top);
  });
  element.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
  element.addEventListener("pointerleave", () => on.hover(null, null));

  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
      const { left, top } = place(event);
      on.zoom(Math.exp(-Math.max(-240, Math.min(240, pixels)) / 360), left, top);
    },
    { passive: false },
  );

  const keys = {
    ArrowLeft: () => on.pan(STEP, 0),
    ArrowRight: () => on.pan(-STEP, 0),
    ArrowUp: () => on.pan(0, STEP),
    ArrowDown: () => on.pan(0, -STEP),
    "+": () => on.zoom(FACTOR),
    "=": () => on.zoom(FACTOR),
    "-": () => on.zoom(1 / FACTOR),
    0: () => on.fit(),
    f: () => on.fit(),
    Escape: () => on.leave(),
  };
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
}
