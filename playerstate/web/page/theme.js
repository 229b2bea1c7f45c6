/** Light or dark: as the system has it, until the operator says otherwise. */

const KEY = "playerstate.theme";
const ORDER = ["auto", "light", "dark"];
const NAMES = { auto: "as the system", light: "light", dark: "dark" };
const listeners = [];
const system = matchMedia("(prefers-color-scheme: dark)");

let theme = stored();
apply();
system.addEventListener("change", tell);

function stored() {
  try {
    const found = localStorage.getItem(KEY);
    return ORDER.includes(found) ? found : "auto";
  } catch {
    return "auto";
  }
}

function keep() {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // A browser that keeps nothing shows the theme until the page is left.
  }
}

function apply() {
  document.documentElement.dataset.theme = theme;
}

function tell() {
  for (const listener of listeners) listener();
}

/** Have a function called when colours change. */
export function onTheme(listener) {
  listeners.push(listener);
}

/** Make a button go through the themes. */
export function themeButton(button) {
  const label = () => {
    button.dataset.theme = theme;
    button.setAttribute("aria-label", `Theme: ${NAMES[theme]}`);
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    keep();
    apply();
    label();
    tell();
  });
  label();
}

const probe = document.createElement("span");
probe.hidden = true;

/** The colours of the moment by name, as a canvas takes them. */
export function colours(...names) {
  if (!probe.isConnected) document.body.append(probe);
  return Object.fromEntries(
    names.map((name) => {
      probe.style.color = `var(--${name})`;
      return [name, getComputedStyle(probe).color];
    }),
  );
}
