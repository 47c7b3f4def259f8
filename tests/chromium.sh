#!/usr/bin/env bash
# Make sure that some Chromium starts: $CHROMIUM, the system's, then one from apt, then Playwright's own download.
# Never fails: without one the browser tests skip themselves, or fail where REQUIRE_BROWSER=1 or CI=true.
# Usage: tests/chromium.sh PYTHON
python=$1

starts() { [ -n "$1" ] && command -v "$1" >/dev/null && "$1" --version >/dev/null 2>&1; }

found() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
        starts "$name" && return 0
    done
    starts "$("$python" -c 'from playwright.sync_api import sync_playwright
with sync_playwright() as driver: print(driver.chromium.executable_path)' 2>/dev/null)"
}

found && exit 0
echo "Installing Chromium for the browser tests (once) ..."
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install --yes --quiet=2 --no-install-recommends chromium)
    # A fresh image has no package lists yet, an old one has stale ones.
    "${install[@]}" >/dev/null 2>&1 || { apt-get update --quiet=2 && "${install[@]}"; } >/dev/null 2>&1
    found && exit 0
fi
"$python" -m playwright install chromium >/dev/null 2>&1
found && exit 0
echo "*** No Chromium could be installed: the browser tests cannot run. Set CHROMIUM=/path/to/one. ***" >&2
