/** Cuts the bytes of a feed into frames and reads them; the server's `docs/web.md` has the format. */

export const FORMAT = 1;
export const UNSAVED = 1;
export const LEAVING = 2;

const HEAD = 8;
const FIRST_ROOM = 1 << 16;
/** More than the longest frame there can be: a feed that announces more is none. */
const MOST = 1 << 24;

const text = new TextDecoder();

/** Gathers bytes as they come, and gives the frames that are whole. */
export class FrameReader {
  constructor() {
    this.room = new Uint8Array(FIRST_ROOM);
    this.used = 0;
  }

  /** Take bytes in; the frames that they complete, as {kind, body}, the body an ArrayBuffer. */
  take(bytes) {
    this.#append(bytes);
    const frames = [];
    const view = new DataView(this.room.buffer);
    let at = 0;
    while (this.used - at >= HEAD) {
      const length = view.getUint32(at, true);
      if (length > MOST) throw new Error("the server sent something that is no feed");
      const end = at + HEAD + length;
      if (end > this.used) break;
      const kind = String.fromCharCode(this.room[at + 4]);
      frames.push({ kind, body: this.room.buffer.slice(at + HEAD, end) });
      at = end;
    }
    this.room.copyWithin(0, at, this.used);
    this.used -= at;
    return frames;
  }

  #append(bytes) {
    let size = this.room.length;
    while (size < this.used + bytes.length) size *= 2;
    if (size > this.room.length) {
      const larger = new Uint8Array(size);
      larger.set(this.room.subarray(0, this.used));
      this.room = larger;
    }
    this.room.set(bytes, this.used);
    this.used += bytes.length;
  }
}

/** The value of a JSON body. */
export function readJson(body) {
  return JSON.parse(text.decode(body));
}

/** The columns of a frame of players; `x` and `y` are null where the class has no axes. */
export function readPlayers(body, hasAxes) {
  const [n, stride] = new Uint32Array(body, 0, 2);
  let at = 8;
  const column = (Type) => {
    const found = new Type(body, at, n);
    at += found.byteLength;
    return found;
  };
  return {
    n,
    stride,
    ids: column(BigInt64Array),
    x: hasAxes ? column(Float32Array) : null,
    y: hasAxes ? column(Float32Array) : null,
    slots: column(Uint32Array),
    flags: column(Uint8Array),
  };
}
