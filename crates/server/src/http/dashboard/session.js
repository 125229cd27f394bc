// Who is logged in, and what is done in their name. The cookie of a session is the browser's alone; the
// word that each command repeats is asked for anew by every page that is opened.

import { h, setText } from "./dom.js";
import { get } from "./state.js";

export const session = { isOpen: false, csrf: null, hasPassword: false };

/** As many addresses as a request's line has room for, with some to spare. */
const NODES_MAX = 1000;

const listeners = new Set();

/** Calls `draw` when somebody has logged in or out; returns how to end that. */
export function subscribeSession(draw) {
  listeners.add(draw);
  return () => listeners.delete(draw);
}

function take(view) {
  Object.assign(session, { isOpen: view.is_open, csrf: view.csrf, hasPassword: view.has_password });
  for (const draw of listeners) draw();
}

export const loadSession = () => get("/v1/session").then(take, () => {});

async function send(method, path, body, headers = {}) {
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  const value = answer.status === 204 ? null : await answer.json();
  if (answer.ok) return value;
  if (answer.status === 401 && session.isOpen) take({ is_open: false, csrf: null, has_password: session.hasPassword });
  throw new Error(value?.detail ?? `${path}: ${answer.status}`);
}

export async function logOut() {
  await send("DELETE", "/v1/session").catch(() => {});
  await loadSession();
}

/** Has `action` done with nodes; returns what was done, in a sentence. */
export async function act(nodes, action, body) {
  const said = [];
  for (let first = 0; first < nodes.length; first += NODES_MAX) {
    const some = nodes.slice(first, first + NODES_MAX).map((node) => node.mac).join(",");
    const done = await send("POST", `/v1/nodes/${some}/${action}`, body, { "x-csrf-token": session.csrf ?? "" });
    said.push(done.text, ...done.refused.slice(0, 3).map(({ node, reason }) => `${node}: ${reason}`));
  }
  return `${said.join(". ")}.`;
}

/** Has `action` done with an image; returns what was done, in a sentence. */
export async function actOnImage(image, action, body) {
  const done = await send("POST", `/v1/images/${encodeURIComponent(image)}/${action}`, body, { "x-csrf-token": session.csrf ?? "" });
  return `${done.text}.`;
}

/** Asks for password or token. */
export function logIn() {
  const secret = h("input", { type: "password", id: "secret", autocomplete: "current-password", maxlength: 1024, required: true });
  const problem = h("p", { class: "bad", role: "alert" });
  const submit = async (event) => {
    event.preventDefault();
    setText(problem, "");
    try {
      take(await send("POST", "/v1/session", { secret: secret.value }));
      dialog.close();
    } catch (error) {
      setText(problem, error.message);
      secret.select();
    }
  };
  const hint = session.hasPassword ? "The password, or the token that `boottorrent dashboard token` prints on the server." : "The token that `boottorrent dashboard token` prints on the server.";
  const dialog = h("dialog", { class: "panel", "aria-labelledby": "login-title", onclose: () => dialog.remove() },
    h("form", { class: "stack", onsubmit: submit }, h("h1", { id: "login-title" }, "Log in"),
      h("label", { for: "secret" }, session.hasPassword ? "Password or token" : "Token"), secret, h("p", { class: "quiet" }, hint), problem,
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "strong" }, "Log in"), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  document.body.append(dialog);
  dialog.showModal();
}
