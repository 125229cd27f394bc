// What can be done with nodes: assign, wake, reboot, accept. The same for one node and for many.

import { h, setAttribute, setText } from "./dom.js";
import { act, logIn, session, subscribeSession } from "./session.js";
import { state, subscribe } from "./state.js";
import { label, plural } from "./words.js";

const DISK = "\n";

/** The panel for what `chosen()` gives: nodes, as the list of the fleet has them. */
export function actions(chosen) {
  const said = h("p", { role: "status" });
  const image = h("select", { "aria-label": "What to boot" });
  const once = h("input", { type: "checkbox" });
  const name = h("input", { type: "text", "aria-label": "Name for this node", placeholder: "name", maxlength: 63, size: 12, autocomplete: "off" });
  let isBusy = false;

  async function perform(action, body, question) {
    const nodes = chosen();
    if (isBusy || !nodes.length) return;
    if (question && !confirm(question(nodes.length === 1 ? label(nodes[0]) : plural(nodes.length, "node")))) return;
    isBusy = true;
    setText(said, "…");
    try {
      setText(said, await act(nodes, action, body));
      setAttribute(said, "class", null);
    } catch (error) {
      setText(said, error.message);
      setAttribute(said, "class", "bad");
    }
    isBusy = false;
    draw();
  }

  const button = (text, onclick) => h("button", { type: "button", onclick }, text);
  const assign = button("Assign", () => perform("assign", { ...(image.value === DISK ? { disk: true } : { image: image.value }), next_boot_only: once.checked }));
  const unassign = button("Unassign", () => perform("unassign"));
  const wake = button("Wake", () => perform("wake"));
  const reboot = button("Reboot", () => perform("reboot", undefined, (which) => `Start ${which} anew? Whoever works there is not asked.`));
  const accept = button("Accept", () => perform("accept", name.value.trim() ? { name: name.value.trim() } : {}));
  const ignore = button("Ignore", () => perform("ignore", undefined, (which) => `Leave ${which} alone from now on? It gets no answer here any more.`));
  const commands = [assign, unassign, wake, reboot];
  const acceptance = h("span", { class: "set" }, name, accept, ignore);
  const tools = h("div", { class: "buttons" },
    h("span", { class: "set" }, image, h("label", {}, once, " next boot only"), assign, unassign), h("span", { class: "set" }, wake, reboot), acceptance);
  const door = h("p", { class: "quiet" }, h("button", { type: "button", onclick: logIn }, "Log in"), " to assign, wake or reboot.");
  const element = h("section", { class: "panel section actions", "aria-label": "Actions" }, door, tools, said);

  function draw() {
    door.hidden = session.isOpen;
    tools.hidden = !session.isOpen;
    const options = [...state.images.map(({ name: value }) => [value, value]), [DISK, "its own disk"]];
    if (options.map(([value]) => value).join(" ") !== [...image.options].map((option) => option.value).join(" ")) {
      // The disk, which is there before any image is known, was nobody's choice.
      const kept = image.options.length > 1 ? image.value : null;
      image.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
      if (options.some(([value]) => value === kept)) image.value = kept;
    }
    const nodes = chosen();
    acceptance.hidden = nodes.length !== 1 || nodes[0].known;
    for (const command of commands) command.disabled = !nodes.length;
    // What nodes.yaml does not name can only be decided for once.
    unassign.hidden = nodes.some((node) => !node.known);
  }

  draw();
  const ends = [subscribe(draw), subscribeSession(draw)];
  return { element, draw, end: () => ends.forEach((end) => end()) };
}
