// Opens a report in headless Chromium, wide and narrow, light and dark, and prints it; prints as JSON what it saw.
// node browser.mjs CHROMIUM REPORT FOLDER
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [executablePath, report, folder] = process.argv.slice(2);

const seen = { console: [], external: [], violations: [], widths: {}, broken: [] };
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });

for (const [width, colorScheme] of [[1400, "light"], [1400, "dark"], [390, "light"], [390, "dark"]]) {
  const context = await browser.newContext({ viewport: { width, height: 844 }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(error.message));
  page.on("request", (request) => {
    if (!/^(data|file):/.test(request.url())) seen.external.push(request.url());
  });
  const address = pathToFileURL(report).href;
  const files = [];
  page.on("request", (request) => request.url().startsWith("file:") && files.push(request.url()));
  await page.goto(address);
  const name = `${width}-${colorScheme}`;
  seen.external.push(...files.filter((url) => url !== address));
  seen.widths[name] = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run());
  for (const one of found.violations) seen.violations.push(`${name}: ${one.id}: ${one.nodes[0].html}`);
  seen.broken.push(...(await page.evaluate(() => [...document.images].filter((one) => !one.naturalWidth).map((one) => one.alt))));
  seen.ground ??= {};
  seen.ground[colorScheme] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  if (name === "1400-light") {
    seen.first = await page.evaluate(() => document.querySelector("#verdict").getBoundingClientRect().bottom);
    await page.keyboard.press("Tab");
    seen.focused = await page.evaluate(() => document.activeElement.textContent);
    await page.keyboard.press("Enter");
    seen.jumped = await page.evaluate(() => location.hash);
    await page.keyboard.press("Tab");
    seen.next = await page.evaluate(() => document.activeElement.getAttribute("href"));
    seen.headings = await page.evaluate(() => [...document.querySelectorAll("h1, h2")].map((one) => one.textContent.trim()));
    const download = page.waitForEvent("download");
    await page.click("a[download]");
    seen.download = readFileSync(await (await download).path(), "utf8");
  }
  if (name === "1400-dark") {
    await page.pdf({ path: `${folder}/report.pdf`, preferCSSPageSize: true, printBackground: true });
    await page.emulateMedia({ media: "print" });
    seen.ground.print = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    seen.menu = await page.evaluate(() => getComputedStyle(document.querySelector("nav")).display);
    await page.emulateMedia({ media: null, colorScheme });
  }
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
  await context.close();
}

await browser.close();
console.log(JSON.stringify(seen));
