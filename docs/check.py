"""Opens every page of build/site in a browser, wide and narrow, light and dark, and tells what is broken.

That is: messages of the console, requests that fail or leave the site, pictures, formulas and links, pages that a phone
scrolls sideways, and a search that does not find.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, TimeoutError, sync_playwright

SITE = Path(__file__).parent.parent / "build" / "site"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")

# Of one page: what is wrong with it, where it links to, and what may be linked to.
LOOK = r"""
async () => {
  const problems = [];
  const pictures = [...document.images].filter(image => image.getClientRects().length);
  for (const image of pictures) image.loading = "eager";
  await Promise.all(pictures.map(image => image.decode().catch(() => {})));
  for (const image of pictures) if (!image.naturalWidth) problems.push(`broken picture ${image.src}`);

  for (const formula of document.querySelectorAll(".math")) {
    const svg = formula.querySelector("svg");
    const box = svg ? svg.getBoundingClientRect() : {width: 0, height: 0};
    if (!svg || !svg.querySelector("path, use") || box.width < 2) problems.push(`no formula in ${formula.textContent}`);
    if (box.height > 250) problems.push(`formula ${box.height} pixels high: ${svg.getAttribute("aria-label")}`);
  }
  const texts = document.createTreeWalker(document.querySelector("article") ?? document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    if (node.parentElement.closest("code, pre, script, style, svg, dt.sig")) continue;
    const raw = node.data.match(/\$[^$]+\$|\\[a-zA-Z]{2,}|:[a-z]+:`|\]\([^)]*\)/);
    if (raw) problems.push(`markup in the text: ${raw[0]}`);
  }

  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) {
    const all = [...document.querySelectorAll("article *")];
    const wide = all.find(element => element.getBoundingClientRect().right > innerWidth + 1);
    problems.push(`${width} pixels wide, because of ${wide?.outerHTML.slice(0, 120)}`);
  }
  const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  if (red + green + blue > 380 === dark) problems.push(`the background is ${red}, ${green}, ${blue}`);
  return {
    problems,
    links: [...document.querySelectorAll("a[href]")].map(link => link.getAttribute("href")),
    anchors: [...document.querySelectorAll("[id], a[name]")].map(element => element.id || element.name),
  };
}
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def listen(page: Page, home: str, heard: list[str]) -> None:
    def message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            heard.append(f"{message.type}: {message.text}")

    def request(request: Request) -> None:
        if not request.url.startswith((home, "data:")):
            heard.append(f"leaves the site: {request.url}")

    def response(response: Response) -> None:
        if response.status >= 400:
            heard.append(f"{response.status}: {response.url}")

    def failed(request: Request) -> None:
        # The next page does not wait for this one's icon.
        if request.failure != "net::ERR_ABORTED":
            heard.append(f"request failed: {request.url}")

    page.on("console", message)
    page.on("request", request)
    page.on("response", response)
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("requestfailed", failed)


def progress(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r{text}\033[K", end="", flush=True)


def visit(browser: Browser, home: str, pages: list[str], screenshots: Path | None) -> list[str]:
    found = []
    seen = {}
    for size, (width, height) in WIDTHS.items():
        for scheme in SCHEMES:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            heard: list[str] = []
            listen(page, home, heard)
            for name in pages:
                page.goto(home + name, wait_until="load")
                seen[name] = page.evaluate(LOOK)
                found += [f"{name}, {size}, {scheme}: {what}" for what in (*heard, *seen[name]["problems"])]
                heard.clear()
                if screenshots:
                    path = screenshots / f"{name.removesuffix('.html').replace('/', '-')}-{size}-{scheme}.png"
                    page.screenshot(path=path, full_page=True)
                progress(f"{size}, {scheme}: {name}")
            found += search(page, home, f"{size}, {scheme}", heard)
            context.close()
    progress("")
    return list(dict.fromkeys(found + links(seen)))


def search(page: Page, home: str, where: str, heard: list[str]) -> list[str]:
    page.goto(f"{home}search.html?q=stochastic", wait_until="load")
    try:
        page.wait_for_selector("ul.search li a[href*=stochastic]", timeout=20_000)
    except TimeoutError:
        heard.append("a search for stochastic does not find its page")
    return [f"search.html, {where}: {what}" for what in heard]


def links(seen: dict[str, dict]) -> list[str]:
    found = []
    for name, page in seen.items():
        for link in page["links"]:
            if link.startswith(("http:", "https:", "mailto:")):
                continue
            target, anchor = urldefrag(urljoin(name, link))
            target = unquote(target)
            if not (SITE / target).is_file():
                found.append(f"{name}: link to {link}, which is not there")
            elif anchor and target in seen and unquote(anchor) not in seen[target]["anchors"]:
                found.append(f"{name}: link to {link}, which has no such place")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="such as poolings/max.html; default: all")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="keep a picture of each page")
    options = parser.parse_args()
    # Folders that begin so hold no pages.
    there = (path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    pages = options.pages or sorted(name for name in there if not name.startswith("_"))
    if not pages:
        sys.exit(f"no pages in {SITE}: make docs")
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        # root cannot have Chromium's sandbox.
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        found = visit(browser, f"http://127.0.0.1:{server.server_port}/", pages, options.screenshots)
        browser.close()
    server.shutdown()
    print("\n".join(found))
    if found:
        sys.exit(f"{len(found)} faults in {len(pages)} pages")
    print(f"{len(pages)} pages, {' and '.join(WIDTHS)}, {' and '.join(SCHEMES)}: nothing to mend")


if __name__ == "__main__":
    main()
