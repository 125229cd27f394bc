// Looks at every page of the dashboard as a person does while a crowd of nodes reports, wide and narrow,
// light and dark: that it shows what it promises, that nothing from a node becomes markup, that axe finds
// nothing, that nothing reaches beyond the screen, and that the console stays empty.
//
//   node pages.mjs BASE-URL NODES FOLDER-FOR-SCREENSHOTS

import { watch } from "./browser.mjs";

const [base, count, shots] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const FAILED = "52:54:00:00:00:00";
const DOWNLOADING = "52:54:00:00:00:09";

/** Each page, and what is there when it is drawn. */
const PAGES = {
  fleet: ["#/", ".tile[data-group=downloading]"],
  node: [`#/node/${DOWNLOADING}`, ".steps li"],
  failed: [`#/node/${FAILED}`, ".why.late"],
  swarm: ["#/swarm", ".givers li:nth-child(20)"],
  images: ["#/images", "tbody tr"],
  log: ["#/log", ".log li:nth-child(20)"],
};

const SCREENS = {
  "wide-light": { width: 1440, height: 900, colorScheme: "light" },
  "phone-dark": { width: 390, height: 844, colorScheme: "dark" },
};

await watch({ origins: [base], shots }, async ({ open, judge, check, faults }) => {
  for (const [screen, options] of Object.entries(SCREENS)) {
    const page = await open(`${base}/`, options);
    page.on("dialog", (dialog) => {
      faults.push("a node's text ran as a script");
      dialog.dismiss();
    });
    for (const [name, [hash, selector]] of Object.entries(PAGES)) {
      await page.evaluate((hash) => { location.hash = hash; }, hash);
      await page.waitForSelector(selector);
      await page.screenshot({ path: `${shots}/${name}-${screen}.png` });
      // A thousand tiles are a thousand times the same to axe, which takes minutes for them: some do.
      if (name === "fleet") {
        await page.fill("#search", "c000");
        await page.waitForFunction(() => document.querySelectorAll(".tile").length <= 20);
      }
      await judge(page, `${name}, ${screen}`);
      if (name === "fleet") await page.fill("#search", "");
    }
    check((await page.locator("img").count()) === 0, "a node's text became an image");
    await page.context().close();
  }

  const page = await open(`${base}/`);
  await page.waitForFunction((count) => document.querySelectorAll(".tile").length === count, count);
  // Live: tiles fill up while nobody touches anything.
  const filled = () => page.evaluate(() => [...document.querySelectorAll(".tile[data-group=downloading]")].map((tile) => tile.style.getPropertyValue("--p")).join());
  const before = await filled();
  for (let tries = 0; (await filled()) === before; tries++) {
    if (tries > 300) throw new Error("the tiles stand still");
    await page.waitForTimeout(200);
  }
  // A table of any length has only the rows in sight.
  await page.click("[data-view=table]");
  await page.waitForSelector("tbody tr td a");
  const rows = await page.locator("tbody tr").count();
  check(rows < 100, `${rows} rows are in the page`);
  await page.click("th:nth-child(2) button");
  await page.screenshot({ path: `${shots}/table-wide-light.png` });
  await judge(page, "table");
  await page.click(".chips [data-group=failed]");
  await page.waitForFunction(() => [...document.querySelectorAll("tbody tr:not(.space) td:nth-child(2)")].every((cell) => cell.textContent === "failed"));
  check((await page.locator(".attention").textContent()).includes("check cable and switch port"), "failures come without their cure");
  return `${Object.keys(PAGES).length} pages on ${Object.keys(SCREENS).length} screens, and the table`;
});
