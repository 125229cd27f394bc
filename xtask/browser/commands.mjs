// Commands the fleet as a person does, over TLS and by the keyboard alone: logs in, finds a node, assigns an
// image to it, to many, and logs out.
//
//   node commands.mjs HTTP-URL HTTPS-URL CERTIFICATE TOKEN FOLDER-FOR-SCREENSHOTS

import { watch } from "./browser.mjs";

const [plain, base, certificate, token, shots] = process.argv.slice(2);
await watch({ origins: [plain, base], certificate, shots }, async ({ open, judge, check }) => {
  // Who looks at the port without TLS is sent to the one with it. A wrong password is answered by 401.
  const page = await open(`${plain}/`, undefined, ["status of 401"]);
  check(page.url().startsWith(`${base}/`), `${plain} leads to ${page.url()}`);
  await page.setViewportSize({ width: 1080, height: 640 });
  await page.waitForFunction(() => document.querySelectorAll(".tile[data-group=downloading]").length > 10);
  await page.screenshot({ path: `${shots}/picture-fleet.png` });
  const focused = (what) => page.evaluate(what);
  const press = (key) => page.keyboard.press(key);

  /** Tab until the thing in focus is the one wanted; fails if the whole page has no such thing. */
  async function tabTo(selector) {
    for (let presses = 0; presses < 200; presses++) {
      await press("Tab");
      if (await page.evaluate((selector) => document.activeElement.matches(selector), selector)) return;
    }
    throw new Error(`Tab never reaches ${selector}`);
  }

  await press("Tab");
  check(await focused(() => document.activeElement.matches("a.skip")), "the first stop of Tab is not the way past the head");
  check(await focused(() => getComputedStyle(document.activeElement).outlineStyle !== "none"), "what has the focus does not show it");
  await tabTo("#login");
  await press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.type("not the token");
  await press("Enter");
  await page.waitForFunction(() => document.querySelector("dialog [role=alert]")?.textContent);
  await judge(page, "log in");
  await page.screenshot({ path: `${shots}/picture-login.png` });
  await page.keyboard.type(token);
  await press("Enter");
  await page.waitForFunction(() => document.getElementById("login").textContent === "Log out");
  const cookies = await page.context().cookies();
  check(cookies.length === 1 && cookies.every((one) => one.httpOnly && one.secure && one.sameSite === "Strict"), `the cookie is ${JSON.stringify(cookies)}`);

  // Search, go to the node, assign, and back.
  await press("/");
  await page.keyboard.type("c0010");
  await page.waitForFunction(() => document.querySelectorAll(".tile").length === 1);
  await press("Escape");
  await tabTo(".tile");
  await press("Enter");
  await page.waitForSelector(".actions select");
  check((await page.locator("h1").textContent()) === "c0010", "the tile of c0010 leads elsewhere");
  check((await page.locator("pre").textContent()).includes("<script>alert(1)</script>"), "the agent's log is not shown as it is");
  await tabTo(".actions select");
  check((await page.locator(".actions select").inputValue()) === "debian", "the only image is not chosen");
  await tabTo(".actions button");
  await press("Enter");
  await page.waitForFunction(() => /c0010 boot/.test(document.querySelector(".actions [role=status]").textContent));
  await page.waitForFunction(() => [...document.querySelectorAll(".facts dt")].some((term) => term.textContent === "Assigned" && term.nextSibling.textContent === "debian"));
  await judge(page, "a node that is assigned");
  await page.screenshot({ path: `${shots}/picture-node.png` });
  await page.goBack();

  // Many at once: what is shown, less one.
  await page.waitForSelector(".tile");
  await press("/");
  await press("Control+a");
  await page.keyboard.type("c001");
  await page.waitForFunction(() => document.querySelectorAll(".tile").length === 10);
  await tabTo(".choose");
  await press("Enter");
  await page.getByRole("button", { name: "All that are shown" }).press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".tile[aria-checked=true]").length === 10);
  await tabTo(".tile");
  await press(" ");
  await page.waitForFunction(() => document.querySelectorAll(".tile[aria-checked=true]").length === 9);
  await judge(page, "nodes that are chosen");
  await page.getByRole("button", { name: "Unassign" }).press("Enter");
  await page.waitForFunction(() => /\d/.test(document.querySelector(".actions > [role=status]:last-child").textContent));

  // Back to a version of an image, and its files published anew under another title.
  page.on("dialog", (dialog) => dialog.accept());
  await page.click("[data-page=images]");
  await page.waitForSelector(".versions li");
  check((await page.locator(".versions li span").allTextContents()).join("; ") === "version 2, 2026-05-12, The lab's own; version 1, 2026-05-11, The lab's own", `the versions are ${await page.locator(".versions").textContent()}`);
  await judge(page, "the versions of an image");
  await page.getByRole("button", { name: "Go back to version 2 of lab" }).press("Enter");
  await page.waitForFunction(() => document.querySelector(".actions [role=status]").textContent === "lab is back: version 2.");
  await page.waitForFunction(() => /^version 3/.test(document.querySelector(".versions li span").textContent));
  await page.getByLabel("Title of lab in the menu").fill("The lab's <b>best</b>");
  await page.getByRole("button", { name: "Publish" }).press("Enter");
  await page.waitForFunction(() => document.querySelector(".actions [role=status]").textContent === "lab is published: version 4.");
  await page.waitForFunction(() => /boot version 4, .*The lab's <b>best<\/b>/.test(document.querySelector(".actions p").textContent));
  await page.screenshot({ path: `${shots}/picture-images.png` });

  await page.locator("#login").press("Enter");
  await page.waitForFunction(() => document.getElementById("login").textContent === "Log in");
  await page.click("[data-page=fleet]");
  check(!(await page.getByRole("button", { name: "Assign", exact: true }).isVisible()), "who has logged out still has commands");
  return "login, commands and keys over TLS";
});
