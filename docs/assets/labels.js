// Names for what the theme makes without one, so that a screen reader can tell the parts of a page from each other;
// and tables and code that are wider than the page can be scrolled by keyboard.
const name = () => document.querySelectorAll(".md-code__nav:not([aria-label])").forEach(
  nav => nav.setAttribute("aria-label", `Code ${1 + document.querySelectorAll(".md-code__nav[aria-label]").length}`));
const reach = () => document.querySelectorAll(".md-typeset__scrollwrap").forEach((wrap, number) => {
  const is_wide = wrap.scrollWidth > wrap.clientWidth;
  for (const [key, value] of [["tabindex", 0], ["role", "region"], ["aria-label", `Table ${number + 1}`]])
    is_wide ? wrap.setAttribute(key, value) : wrap.removeAttribute(key);
});
const reachCode = () => document.querySelectorAll("pre > code").forEach(code => {
  code.scrollWidth > code.clientWidth ? code.setAttribute("tabindex", 0) : code.removeAttribute("tabindex");
});
const all = () => { name(); reach(); reachCode(); };
new MutationObserver(all).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", all);
addEventListener("load", all);
all();
