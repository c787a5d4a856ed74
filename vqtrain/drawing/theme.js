"use strict";
// The theme: that of the system until a button was pressed, which is remembered where it may be.
const page = JSON.parse(document.getElementById("data").textContent);
const themeButton = document.getElementById("theme");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const redraw = [];  // what is to be done once the colors have changed

function remembered(value) {
  try {
    if (value !== undefined) localStorage.setItem("vqtrain-theme", value);
    return localStorage.getItem("vqtrain-theme");
  } catch {
    return null;  // storage is not allowed here
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  themeButton.textContent = name === "dark" ? "Light theme" : "Dark theme";
  for (const action of redraw) action();
}

const systemTheme = () => (systemIsDark.matches ? "dark" : "light");
const chosenTheme = () => remembered() || systemTheme();
themeButton.addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  remembered(next);
  setTheme(next);
});
systemIsDark.addEventListener("change", () => {
  if (!remembered()) setTheme(systemTheme());
});
addEventListener("beforeprint", () => setTheme("light"));
addEventListener("afterprint", () => setTheme(chosenTheme()));
setTheme(chosenTheme());

// Small helpers of the other scripts.
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function shown(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(2);
  return value.toLocaleString("en-US", { maximumSignificantDigits: size >= 1000 ? 9 : 5 });
}
