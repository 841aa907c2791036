// Names for what the theme makes without one, so that a screen reader can tell the parts of a page from each other.
const name = () => document.querySelectorAll(".md-code__nav:not([aria-label])").forEach(
  nav => nav.setAttribute("aria-label", `Code ${1 + document.querySelectorAll(".md-code__nav[aria-label]").length}`));
new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
name();
