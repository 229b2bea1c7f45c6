/** Figures as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count, with thousands apart. */
export function count(number) {
  return whole.format(number);
}

/** A count where there is little room: 5K. */
export function short(number) {
  return compact.format(number);
}

/** A rate: one digit behind the point only where it is small. */
export function rate(number) {
  return number < 10 && number % 1 ? number.toFixed(1) : whole.format(number);
}

/** A span in seconds: 0.4 s, 12 s, 2 min 5 s, 1 h 2 min. */
export function span(seconds) {
  if (!seconds) return "0 s";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${whole.format(Math.floor(seconds / 3600))} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** A number of seconds that was chosen, without needless digits: 5 s, 0.1 s. */
export function chosen(seconds) {
  return `${Number(seconds.toPrecision(6))} s`;
}

/** Milliseconds of a commit: 0.8 ms, 31 ms, 1.2 s. */
export function latency(milliseconds) {
  if (!milliseconds) return "0 ms";
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : whole.format(milliseconds)} ms`;
}

/** A coordinate, with as many digits as a step of this size needs. */
export function coordinate(value, step = 0.1) {
  if (value !== 0 && (Math.abs(value) >= 1e7 || step < 1e-6)) return value.toExponential(2);
  return value.toFixed(Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9))));
}

/** A time of day. */
export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}
