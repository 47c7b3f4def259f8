"""Pictures of reports for the README: `python docs/pictures.py REPORT.html OUT.png [FIGURE]`.

The top of the page, or one figure by its name. Needs Playwright and
Chromium, as the browser tests do.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = ["--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main(report: Path, picture: Path, figure: str | None = None) -> None:
    """Open the report and take the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"),
            args=[*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        page = browser.new_page(viewport={"width": 1100, "height": 1150})
        page.goto(report.resolve().as_uri())
        if figure is None:
            page.wait_for_timeout(1500)
            page.screenshot(path=picture)
        else:
            found = page.locator(f"figure[data-name='{figure}']")
            found.scroll_into_view_if_needed()
            page.wait_for_timeout(1500)
            found.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
