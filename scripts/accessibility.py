"""Check pages for accessibility errors with axe-core in a headless Chromium; exit status 1 where there is one.

    npm install --prefix /tmp/axe axe-core
    make docs
    python scripts/accessibility.py /tmp/axe outputs/site/index.html multirun/…/report.html

Each page is looked at in the light and in the dark scheme. It is copied beside itself with axe-core in it, so that its
links to files hold. No server is needed.
"""

import html
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

RUN = """<script>%s</script><script>addEventListener("load", () => setTimeout(() => axe.run().then(found => {
const out = document.createElement("pre"); out.id = "found"; out.textContent = JSON.stringify(found.violations);
document.body.append(out); }), 800));</script>"""
BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
           "--window-size=1280,900", "--virtual-time-budget=15000", "--dump-dom")  # fmt: skip
SCHEMES = {"light": 1, "dark": 0}  # Chromium's numbers for what a reader prefers


def violations(page: Path, axe: str, scheme: str) -> list[dict[str, Any]]:
    """What axe-core finds on a page in one of ``SCHEMES``, each with its rule, how grave it is, and the elements."""
    copy = page.with_name(f"axe-{page.name}")
    script = RUN % axe.replace("</script>", r"<\/script>")
    copy.write_text(page.read_text().replace("</body>", f"{script}</body>"))
    try:
        prefers = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
        done = subprocess.run([*BROWSER, prefers, copy.resolve().as_uri()], capture_output=True, text=True, timeout=120)
    finally:
        copy.unlink()
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    if found is None:
        sys.exit(f"{page}: axe-core gave no answer: {done.stderr[-300:]}")
    return list(json.loads(html.unescape(found[1])))


def main(folder: str, *pages: str) -> int:
    """Print what is wrong on each page in each scheme; returns how many have something."""
    axe = (Path(folder) / "node_modules" / "axe-core" / "axe.min.js").read_text()
    bad = 0
    for page, scheme in itertools.product(map(Path, pages), SCHEMES):
        wrong = violations(page, axe, scheme)
        bad += bool(wrong)
        print(f"{page}, {scheme}: {len(wrong) or 'no'} rules broken", flush=True)
        for one in wrong:
            print(f"  {one['impact']}: {one['help']} ({one['id']})")
            for node in one["nodes"][:3]:
                print(f"    {node['html'][:110]}")
    return bad


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(min(main(*sys.argv[1:]), 1))
