// Images: what nodes can boot, in which version; and back to one that was kept, or published anew.

import { h, keyed, setAttribute, setText } from "./dom.js";
import { actOnImage, logIn, session, subscribeSession } from "./session.js";
import { state, subscribe, refresh } from "./state.js";
import { bytes } from "./words.js";

export function images(main) {
  const rows = h("tbody");
  const none = h("p", { class: "empty" }, "No image is published.");
  const heads = ["Image", "Name", "Version", "Size", "Nodes", "Server gave", "Peers", "Torrent"];
  const right = new Set(["Size", "Nodes", "Server gave", "Peers"]);
  const built = h("div", { class: "stack" });
  main.replaceChildren(h("h1", { class: "hidden" }, "Images"), h("div", { class: "stack" },
    h("section", { class: "panel table", tabindex: 0, role: "region", "aria-label": "Images" },
      h("table", {}, h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col", class: right.has(text) ? "num" : null }, text)))), rows), none),
    built));
  function draw() {
    none.hidden = state.images.length > 0;
    keyed(rows, state.images, (image) => image.name, row, drawRow);
    keyed(built, state.images.filter((image) => image.version !== null), (image) => image.name, (image) => versions(image.name), (section, image) => section.draw(image));
  }
  draw();
  const ends = [subscribe(draw), subscribeSession(draw)];
  return () => ends.forEach((end) => end());
}

const row = (image) => h("tr", {}, h("td", {}, h("b"), h("span", { class: "quiet" })), h("td", { class: "mono" }), h("td", {}, h("b"), h("span", { class: "mono" }), h("span", { class: "quiet" })),
  ...[0, 0, 0, 0].map(() => h("td", { class: "num" })), h("td", {}, h("a", { href: image.torrent, download: "" }, `${image.name}.torrent`)));

function drawRow({ children: cells }, image) {
  setText(cells[0].firstChild, image.title);
  setText(cells[0].lastChild, image.is_default ? "  default" : "");
  setText(cells[1], image.name);
  const [number, hash, older] = cells[2].children;
  setText(number, image.version === null ? "" : `${image.version}  `);
  setText(hash, image.infohash.slice(0, 12));
  setAttribute(hash, "title", image.infohash);
  setText(older, image.retired_count ? "  older one still given" : "");
  setText(cells[3], bytes(image.len_bytes));
  setText(cells[4], String(image.node_count));
  setText(cells[5], bytes(image.uploaded_bytes));
  setText(cells[6], String(image.peer_count));
}

const told = ({ number, made, title }) => [`version ${number}`, made, title].filter(Boolean).join(", ");

/** What can be done with an image that was built here. */
function versions(name) {
  const said = h("p", { role: "status" });
  const now = h("p", { class: "quiet" });
  const kept = h("ol", { class: "lines versions" });
  const title = h("input", { type: "text", maxlength: 100, size: 24, autocomplete: "off", placeholder: "as it is", "aria-label": `Title of ${name} in the menu` });
  const cmdline = h("input", { type: "text", maxlength: 2047, size: 24, autocomplete: "off", placeholder: "as it is", "aria-label": `Words for the command line of ${name}` });
  let isBusy = false;

  async function perform(action, body, question) {
    if (isBusy || !confirm(question)) return;
    isBusy = true;
    setText(said, "…");
    try {
      setText(said, await actOnImage(name, action, body));
      setAttribute(said, "class", null);
      title.value = cmdline.value = "";
      refresh();
    } catch (error) {
      setText(said, error.message);
      setAttribute(said, "class", "bad");
    }
    isBusy = false;
  }

  const publish = h("button", { type: "button", onclick: () => perform("publish", { title: title.value.trim() || null, cmdline: cmdline.value.trim() || null }, `Publish ${name} anew? Nodes that boot from now on get that version.`) }, "Publish");
  const tools = h("div", { class: "buttons" }, h("label", {}, "Title ", title), h("label", {}, "Command line ", cmdline), publish);
  const door = h("p", { class: "quiet" }, h("button", { type: "button", onclick: logIn }, "Log in"), " to go back to a version, or to publish.");
  const section = h("section", { class: "panel section actions", "aria-label": `Versions of ${name}` }, h("h2", {}, `Versions of ${name}`), now, kept, door, tools, said);
  const item = ({ number }) => h("li", {}, h("button", { type: "button", "aria-label": `Go back to version ${number} of ${name}`, onclick: () => perform("rollback", { to: number }, `Have nodes boot version ${number} of ${name} from now on?`) }, "Go back"), h("span"));
  section.draw = (image) => {
    setText(now, `Nodes boot ${told({ number: image.version, made: image.made, title: image.title })}. ${image.kept_versions.length ? "Kept:" : "No other is kept."}`);
    keyed(kept, [...image.kept_versions].reverse(), (version) => version.number, item, (element, version) => {
      element.firstChild.disabled = !session.isOpen;
      setText(element.lastChild, told(version));
    });
    door.hidden = session.isOpen;
    tools.hidden = !session.isOpen;
  };
  return section;
}
