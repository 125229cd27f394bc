// Looks at every page of the dashboard as a person does, wide and narrow, light and dark: that it shows
// what it promises, that nothing from a node becomes markup, that axe finds nothing, that nothing
// reaches beyond the screen, and that the console stays empty. Ends with 1 and every fault in a line.
//
//   node pages.mjs BASE-URL NODES FOLDER-FOR-SCREENSHOTS

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [base, count, shots] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
// Generous: the machine also runs the server and its nodes.
const TIMEOUT = 60_000;
const FAILED = "52:54:00:00:00:00";
const DOWNLOADING = "52:54:00:00:00:09";
const faults = [];
const check = (isGood, text) => isGood || faults.push(text);

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function open(path, { width = 1440, height = 900, colorScheme = "light" } = {}) {
  // The page's own policy would keep axe out, which is not part of it.
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, bypassCSP: true });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && faults.push(`${path}: console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`${path}: ${error.message}`));
  page.on("dialog", (dialog) => {
    faults.push(`${path}: a node's text ran as a script`);
    dialog.dismiss();
  });
  page.on("request", (request) => check(request.url().startsWith(base), `${path} asks ${request.url()}`));
  await page.goto(base + path);
  await page.waitForSelector("#live[data-live=yes]");
  return page;
}

/** What is there when a page is drawn. */
const PAGES = {
  fleet: ["/", ".tile"],
  node: [`/#/node/${DOWNLOADING}`, ".steps li"],
  failed: [`/#/node/${FAILED}`, ".why.late"],
  swarm: ["/#/swarm", ".givers li:nth-child(20)"],
  images: ["/#/images", "tbody tr"],
  log: ["/#/log", ".log li:nth-child(20)"],
};
const SCREENS = {
  "wide-light": { width: 1440, height: 900 },
  "phone-dark": { width: 390, height: 844, colorScheme: "dark" },
};

for (const [screen, options] of Object.entries(SCREENS)) {
  for (const [name, [path, selector]] of Object.entries(PAGES)) {
    const page = await open(path, options);
    await page.waitForSelector(selector);
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(beyond <= 0, `${name}, ${screen}: ${beyond} pixels beyond the screen`);
    await page.screenshot({ path: `${shots}/${name}-${screen}.png` });
    // A thousand tiles are a thousand times the same to axe, which takes minutes for them: ten do.
    if (name === "fleet") {
      await page.fill("#search", "c001");
      await page.waitForFunction(() => document.querySelectorAll(".tile").length <= 20);
    }
    await page.evaluate(AXE);
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    const { violations } = await page.evaluate((tags) => axe.run({ runOnly: tags }), tags);
    for (const { id, nodes } of violations) faults.push(`${name}, ${screen}: axe: ${id}: ${nodes[0].html.slice(0, 120)}`);
    await page.context().close();
  }
}

const page = await open("/");
await page.waitForFunction((count) => document.querySelectorAll(".tile").length === count, count);
// Live: a tile fills up while nobody touches anything.
const filled = () => page.evaluate(() => [...document.querySelectorAll(".tile[data-group=downloading]")].map((tile) => tile.style.getPropertyValue("--p")).join());
const before = await filled();
await page.waitForFunction((before) => [...document.querySelectorAll(".tile[data-group=downloading]")].map((tile) => tile.style.getPropertyValue("--p")).join() !== before, before);
// By the keyboard alone: search, then to the node and back.
await page.keyboard.press("/");
await page.keyboard.type("c0010");
await page.waitForFunction(() => document.querySelectorAll(".tile").length === 1);
await page.keyboard.press("Escape");
await page.locator(".tile").focus();
await page.keyboard.press("Enter");
await page.waitForSelector(".steps li");
check((await page.locator("h1").textContent()) === "c0010", "the tile of c0010 leads elsewhere");
check((await page.locator("pre").textContent()).includes("<script>alert(1)</script>"), "the agent's log is not shown as it is");
await page.goBack();
await page.fill("#search", "");
// A table of any length has only the rows in sight.
await page.click("[data-view=table]");
await page.waitForSelector("tbody tr td a");
const rows = await page.locator("tbody tr").count();
check(rows < 100, `${rows} rows are in the page`);
await page.click("th:nth-child(2) button");
await page.screenshot({ path: `${shots}/table-wide-light.png` });
await page.click(".chips [data-group=failed]");
await page.waitForFunction(() => [...document.querySelectorAll("tbody tr td:nth-child(2)")].every((cell) => cell.textContent === "failed"));
check((await page.locator(".attention").textContent()).includes("check cable and switch port"), "failures come without their cure");
check((await page.locator("img").count()) === 0, "a node's text became an image");

await browser.close();
for (const fault of faults) console.error(fault);
console.log(`${Object.keys(PAGES).length} pages on ${Object.keys(SCREENS).length} screens, ${faults.length} faults`);
process.exit(faults.length ? 1 : 0);
