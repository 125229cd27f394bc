// The frame: which page is shown, whether it is live, light or dark.

import { h, setAttribute, setText } from "./dom.js";
import { fleet } from "./fleet.js";
import { images } from "./images.js";
import { node } from "./node.js";
import { log, swarm } from "./pages.js";
import { loadSession, logIn, logOut, session, subscribeSession } from "./session.js";
import { listen, state, subscribe } from "./state.js";
import { duration, plural } from "./words.js";

const PAGES = { fleet, swarm, images, log };
const main = document.getElementById("main");
let leave = null;

function show() {
  const [first, second] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  leave?.();
  document.title = "BootTorrent";
  window.scrollTo(0, 0);
  if (first === "node" && second) leave = node(main, second.toLowerCase());
  else leave = (PAGES[first] ?? fleet)(main);
  for (const link of document.querySelectorAll("nav a")) {
    setAttribute(link, "aria-current", link.dataset.page === (first || "fleet") ? "page" : null);
  }
}

function frame() {
  const live = document.getElementById("live");
  setAttribute(live, "data-live", state.isLive ? "yes" : "no");
  setText(live, state.problem ?? (state.isLive ? "live" : "not connected"));
  const { server } = state;
  if (!server) return;
  const off = server.services.filter((service) => service.state === "off").map((service) => service.name);
  const words = [`BootTorrent ${server.version} on ${server.address} (${server.interface})`, `up ${duration(Date.now() - server.started_unix_ms)}`, `manifest ${server.manifest_serial}`];
  if (off.length) words.push(`${off.join(", ")} off`);
  if (server.refused_node_count) words.push(`${plural(server.refused_node_count, "newcomer")} without a place`);
  const foot = document.getElementById("foot");
  if (foot.firstChild) setText(foot.firstChild, words.join(" · "));
  else foot.append(h("p", {}, words.join(" · ")));
}

// The browser's choice, unless somebody made another; both work without it.
const THEME = "boottorrent-theme";
const isDark = matchMedia("(prefers-color-scheme: dark)");
function theme() {
  const chosen = localStorage.getItem(THEME);
  if (chosen) document.documentElement.dataset.theme = chosen;
}
document.getElementById("theme").addEventListener("click", () => {
  const shown = localStorage.getItem(THEME) ?? (isDark.matches ? "dark" : "light");
  localStorage.setItem(THEME, shown === "dark" ? "light" : "dark");
  theme();
});

const door = document.getElementById("login");
door.addEventListener("click", () => (session.isOpen ? logOut() : logIn()));
subscribeSession(() => {
  door.hidden = false;
  setText(door, session.isOpen ? "Log out" : "Log in");
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    document.getElementById("search")?.focus();
    event.preventDefault();
  }
  if (event.key === "Escape" && isTyping) event.target.blur();
});

theme();
loadSession();
show();
window.addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});
subscribe(frame);
listen();
