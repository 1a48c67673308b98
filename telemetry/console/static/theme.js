// Light, dark, or as the system says; the choice is remembered.

import { $ } from "./dom.js";

const CHOICES = ["system", "light", "dark"];
const LABELS = { system: ["◐", "as the system"], light: ["○", "light"], dark: ["●", "dark"] };
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try {
    return localStorage.getItem("theme") ?? "system";
  } catch {
    return "system"; // storage is blocked
  }
}

let choice = CHOICES.includes(remembered()) ? remembered() : "system";

export const isDark = () => (choice === "system" ? system.matches : choice === "dark");

/** Apply the choice now and at each change; `onChange(dark)` tells the map. */
export function startTheme(onChange) {
  const button = $("theme");
  const apply = () => {
    const [sign, label] = LABELS[choice];
    document.documentElement.dataset.theme = isDark() ? "dark" : "light";
    button.textContent = sign;
    button.setAttribute("aria-label", `Colours: ${label}`);
    button.title = `Colours: ${label}`;
    onChange(isDark());
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try {
      localStorage.setItem("theme", choice);
    } catch {
      // the choice lasts as long as the page
    }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
