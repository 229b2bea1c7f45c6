/** Requests to the server, each with the token in a header. */

/** The server answered, and did not do it; `field` is what in the request is wrong, if anything. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.error || `the server answered ${status}`);
    this.status = status;
    this.field = body.field || "";
    this.allowed = body.allowed || "";
  }
}

/** The headers that carry a token; none without one. */
export function authorization(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** What an answer that is no success says. */
export async function refusal(answer) {
  try {
    return new Refused(answer.status, await answer.json());
  } catch {
    return new Refused(answer.status, {});
  }
}

export class Api {
  /** `token` gives the token of the moment; `onUnauthorized` is told of one that is not known. */
  constructor(token, onUnauthorized) {
    this.token = token;
    this.onUnauthorized = onUnauthorized;
  }

  get(path) {
    return this.#ask(path, { method: "GET" });
  }

  post(path) {
    return this.#ask(path, { method: "POST" });
  }

  patch(path, fields) {
    return this.#ask(path, {
      method: "PATCH",
      body: JSON.stringify(fields),
      headers: { "Content-Type": "application/json" },
    });
  }

  async #ask(path, { headers = {}, ...options }) {
    let answer;
    try {
      answer = await fetch(path, {
        ...options,
        headers: { ...headers, ...authorization(this.token()) },
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
      });
    } catch {
      throw new Error("the server cannot be reached");
    }
    if (answer.ok) return answer.json();
    const refused = await refusal(answer);
    if (refused.status === 401) this.onUnauthorized(refused.message);
    throw refused;
  }
}
